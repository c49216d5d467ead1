"""Parts of the worker that need no other interpreter."""

import ast
import configparser
import io
import json
import pathlib
import sys

import pytest

import refresh_agent.db.worker
from refresh_agent.db.bridge import LONGEST_ANSWER
from refresh_agent.db.worker import faults, isolation, protocol, repository, serve
from refresh_agent.db.worker.faults import TargetError
from refresh_agent.db.worker.protocol import MESSAGE_LIMIT, Job, LegacyStep, Report, Result

SOURCES = sorted(pathlib.Path(refresh_agent.db.worker.__file__).parent.glob("*.py"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_is_written_for_python_3_9_and_imports_nothing_of_ours(path: pathlib.Path) -> None:
    tree = ast.parse(path.read_text(), feature_version=(3, 9))
    allowed = {*sys.stdlib_module_names, "sqlalchemy", "alembic", "migrate"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            assert {alias.name.partition(".")[0] for alias in node.names} <= allowed
        if isinstance(node, ast.ImportFrom):
            assert node.level == 1 or str(node.module).partition(".")[0] in allowed


# --- repository ------------------------------------------------------------------------------------------


def make_repository(path: pathlib.Path, settings: str, *names: str) -> str:
    (path / "versions").mkdir()
    (path / "migrate.cfg").write_text(settings)
    for name in names:
        (path / "versions" / name).touch()
    return str(path)


def test_repository(tmp_path: pathlib.Path) -> None:
    path = make_repository(
        tmp_path,
        "[db_settings]\nrepository_id=heat\nversion_table=heat_version\nrequired_dbs=[]\nodd=%(x",
        "__init__.py",
        "073_a.py",
        "074_b_sqlite_upgrade.sql",
        "074_b_sqlite_downgrade.sql",
        "1000.py",
        "75_too_short.py",
        "080_notes.txt",
        "081_c.pyc",
    )
    found = repository.read(path)
    assert (found.name, found.version_table, found.defect) == ("heat", "heat_version", "")
    assert found.scripts == {73, 74, 1000}


def test_titles_and_files_of_versions(tmp_path: pathlib.Path) -> None:
    path = make_repository(
        tmp_path,
        "[db_settings]\nrepository_id=heat\n",
        "001_order_status.py",
        "002_prices_sqlite_upgrade.sql",
        "002_prices_default_upgrade.sql",
        "002_prices_sqlite_downgrade.sql",
        "003.py",
        "004_mysql_upgrade.sql",
    )
    found = repository.read(path)
    assert [found.title_of(version) for version in (1, 2, 3, 4)] == ["order status", "prices", "", ""]
    names = [pathlib.Path(file).name for file in found.files_of(2, "sqlite")]
    assert names == ["002_prices_default_upgrade.sql", "002_prices_sqlite_upgrade.sql"]
    assert found.files_of(1, "mysql") == (f"{path}/versions/001_order_status.py",)
    assert found.files_of(4, "sqlite") == ()


def test_repository_defaults(tmp_path: pathlib.Path) -> None:
    path = make_repository(tmp_path, "[db_settings]\nrepository_id=heat\n")
    assert repository.read(path) == repository.Repository(path, "heat", "migrate_version")
    assert repository.read("") == repository.Repository()


@pytest.mark.parametrize(
    "settings", ["", "repository_id=heat", "[db_settings]\n", "[db_settings]\nrepository_id=\xe9"]
)
def test_repository_that_cannot_be_read(tmp_path: pathlib.Path, settings: str) -> None:
    (tmp_path / "migrate.cfg").write_bytes(settings.encode("latin-1"))
    found = repository.read(str(tmp_path))
    assert found.defect.startswith(f"migrate_repository {tmp_path} cannot be read: ")
    assert "\n" not in found.defect


# --- protocol --------------------------------------------------------------------------------------------


def test_a_job_survives_json() -> None:
    step = LegacyStep(protocol.UP, 7, control=0, scope="alembic_version")
    job = Job("shop", "x://u:p@h", legacy_versions=((3, "abcd"),), python_path=("/a",), legacy=step)
    assert Job.from_json(json.loads(json.dumps(job.as_json()))) == job


@pytest.mark.parametrize("character", ["a", "\u00e9", "\U0001f600", "\udce9", "\x00"])
def test_a_message_is_long_enough_for_what_it_recommends_and_never_endless(character: str) -> None:
    """The bridge takes lines of up to 32 MiB; in JSON a character needs at most 12 bytes."""
    stream = io.BytesIO()
    Report("shop", stream, str).result(Result(protocol.FAILED, message=character * 10_000))
    line = stream.getvalue()
    assert len(line) < 12 * MESSAGE_LIMIT + 200 < LONGEST_ANSWER
    assert len(json.loads(line)["message"]) == MESSAGE_LIMIT


def test_a_report_is_masked_all_the_way_down() -> None:
    stream = io.BytesIO()
    report = {"dirty": {"error": "no secret here"}, "applied": ["secret"], "kept": 3, "lock": None}
    Report("shop", stream, lambda line: line.replace("secret", "***")).result(
        Result(protocol.DONE, report=report)
    )
    assert json.loads(stream.getvalue())["report"] == {
        "dirty": {"error": "no *** here"},
        "applied": ["***"],
        "kept": 3,
        "lock": None,
    }


def test_a_message_is_masked_before_it_is_cut() -> None:
    stream = io.BytesIO()
    text = "x" * (MESSAGE_LIMIT - 3) + "secret"
    Report("shop", stream, lambda line: line.replace("secret", "***")).step(text)
    assert "se" not in json.loads(stream.getvalue())["message"]


# --- faults ----------------------------------------------------------------------------------------------


def test_a_fault_is_told_with_its_place_in_the_targets_own_code(tmp_path: pathlib.Path) -> None:
    packaged = tmp_path / "site-packages" / "shop" / "versions"
    packaged.mkdir(parents=True)
    library = tmp_path / "site-packages" / "library.py"
    library.write_text("def fail():\n    raise RuntimeError('boom')\n")
    (packaged / "1_first.py").write_text("\n\nlibrary['fail']()\n")
    (tmp_path / "env.py").write_text("int('x')\n")

    def run(path: pathlib.Path, **names: object) -> None:
        exec(compile(path.read_text(), path, "exec"), names)

    known: dict[str, object] = {}
    exec(compile(library.read_text(), library, "exec"), known)
    with pytest.raises(TargetError) as caught:
        faults.foreign(lambda: run(packaged / "1_first.py", library=known))
    assert str(caught.value) == "RuntimeError: boom (1_first.py, line 3)"
    with pytest.raises(TargetError, match=r"^ValueError: .* \(env\.py, line 1\)$"):
        faults.foreign(lambda: run(tmp_path / "env.py"))


def test_a_syntax_error_has_its_place_anyway() -> None:
    with pytest.raises(TargetError, match=r"\(x\.py, line 1\)$"):
        faults.foreign(lambda: ast.parse("a b", "x.py"))


def test_what_is_wrong_with_an_ini_file_is_told_without_a_word_of_it() -> None:
    parser = configparser.ConfigParser()
    with pytest.raises(TargetError) as caught:
        faults.foreign(
            lambda: parser.read_string("[alembic]\nurl = %geheim\n") or parser.get("alembic", "url")
        )
    assert "[alembic] url: a % in it names nothing that is set" in str(caught.value)
    assert "geheim" not in str(caught.value)


def test_one_line() -> None:
    assert faults.one_line(RuntimeError("a\n  b")) == "RuntimeError: a b"
    assert faults.one_line(RuntimeError()) == "RuntimeError"


def test_foreign_keeps_what_is_ours() -> None:
    error = TargetError("ours")

    def fail() -> None:
        raise error

    with pytest.raises(TargetError) as caught:
        faults.foreign(fail)
    assert caught.value is error


def test_ctrl_c_is_nobodys_fault() -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        faults.foreign(interrupt)


def test_driver_with_its_own_name_for_pip() -> None:
    assert str(faults.missing_driver(ModuleNotFoundError(name="MySQLdb"))).endswith("pip install mysqlclient")
    assert str(faults.missing_driver(ModuleNotFoundError(name="asyncpg"))).endswith("pip install asyncpg")


def test_a_fault_of_ours_is_a_result_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    monkeypatch.setitem(serve.MODULES, protocol.STATUS, "nonesuch")
    monkeypatch.chdir(tmp_path)
    stream = io.BytesIO()
    job = Job("shop", f"sqlite:///{tmp_path}/shop.db")
    serve._serve(job, protocol.Order(protocol.STATUS), Report("shop", stream, str))
    result = json.loads(stream.getvalue().splitlines()[-1])
    assert (result["event"], result["result"]) == ("result", "failed")
    assert result["message"].startswith("internal error: ModuleNotFoundError: No module named")


# --- isolation -------------------------------------------------------------------------------------------


def test_modules_of_a_tree_go_and_those_of_the_environment_stay() -> None:
    path = ["/env/site-packages", "/usr/lib/python3"]
    below = isolation._is_below
    assert below("/env/site-packages/a/__init__.py", path)
    assert below(None, path)
    assert not below("/srv/tree/models.py", path)
    assert not below("/env/site-packages-of-another/a.py", path)
