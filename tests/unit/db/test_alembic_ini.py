"""What is wrong with an alembic.ini is told with its line, and without a word that is in it."""

import pathlib

import pytest

from refresh_agent.db.worker import alembic_ini
from refresh_agent.db.worker.faults import TargetError


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"url = geheim\n", "line 1: stands before the first [section]; correct the file"),
        (b"[alembic]\ngeheim\n", "line 2: is neither a [section] nor an assignment; correct the file"),
        (b"[alembic]\na = geheim\na = geheim\n", "line 3: sets an option that is set already; correct the"),
        (b"[alembic]\n[alembic]\n", "line 2: begins a section that is there already; correct the file"),
        (b"[alembic]\n# geheim \xe9\n", "line 2: is not UTF-8 text; correct the file"),
    ],
)
def test_malformed(content: bytes, problem: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("tree") / "alembic.ini"
    path.write_bytes(content)
    with pytest.raises(TargetError) as caught:
        alembic_ini.read(str(path))
    assert str(caught.value).startswith(f"alembic_config {path}: {problem}")
    assert "geheim" not in str(caught.value)


def test_missing(tmp_path: pathlib.Path) -> None:
    with pytest.raises(TargetError, match=f"alembic_config {tmp_path}/no.ini does not exist"):
        alembic_ini.read(f"{tmp_path}/no.ini")


def test_a_directory_cannot_be_read(tmp_path: pathlib.Path) -> None:
    with pytest.raises(TargetError) as caught:
        alembic_ini.read(str(tmp_path))
    assert str(caught.value) == (
        f"alembic_config {tmp_path} cannot be read by user {alembic_ini.user_name()}: Is a directory"
    )


def test_good_or_none(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "alembic.ini"
    path.write_text("[alembic]\nscript_location = x\n")
    assert alembic_ini.read(str(path)).get_main_option("script_location") == "x"
    assert alembic_ini.read("").get_main_option("script_location") is None
