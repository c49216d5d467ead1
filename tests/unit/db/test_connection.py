"""The connection out of a service's own configuration."""

import os
import pathlib

import pytest

from refresh_agent.db.connection import UnknownConnectionError, read


def written(tmp_path: pathlib.Path, text: str) -> str:
    path = tmp_path / "shop.conf"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize(
    ("text", "connection"),
    [
        ("[database]\nconnection = mysql://shop:geheim@db/shop\n", "mysql://shop:geheim@db/shop"),
        (
            "[DEFAULT]\ndebug = true\n[database]\nconnection=sqlite:////a\nconnection=sqlite:////b\n",
            "sqlite:////b",
        ),
        ("[database]\nconnection = mysql://shop:a$$b@db/shop\n", "mysql://shop:a$b@db/shop"),
        ("[DEFAULT]\nhost = db\n[database]\nconnection = mysql://$host/shop\n", "mysql://db/shop"),
        ("[database]\nword = x\nconnection = mysql://shop:$word@db/shop\n", "mysql://shop:x@db/shop"),
        ("[db]\nhost = h\n[database]\nconnection = mysql://${db.host}/shop\n", "mysql://h/shop"),
        ("[DEFAULT]\na = $b\nb = c\n[database]\nconnection = mysql://$a/shop\n", "mysql://c/shop"),
        ("[DEFAULT]\n1odd = 2\n[database]\nconnection = sqlite:////a\n", "sqlite:////a"),
    ],
)
def test_it_is_read_as_the_service_reads_it(tmp_path: pathlib.Path, text: str, connection: str) -> None:
    assert read(written(tmp_path, text)) == connection


def test_the_environment_does_not_speak_for_every_service(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OS_DATABASE__CONNECTION", "mysql://elsewhere/shop")
    assert read(written(tmp_path, "[database]\nconnection = sqlite:////a\n")) == "sqlite:////a"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no [database] connection; set it there, or set connection"),
        ("[DEFAULT]\nconnection = geheim\n", "has no [database] connection"),
        ("[database]\nconnection =\n", "[database] connection: is empty"),
        (
            "[database]\nconnection = mysql://shop:geheim$nowhere@db/shop\n",
            "[database] connection: a $ in it names an option that",
        ),
        (
            "[database]\nconnection = mysql://shop:geheim$connection@db/shop\n",
            "[database] connection: its value cannot be used",
        ),
        ("[database]\nconnection = mysql://x/y\ngeheim\n", "line 3: "),
        ("geheim = 1\n[database]\n", "line 2: Section must be started before assignment"),
    ],
)
def test_what_is_wrong_is_told_with_the_file_and_without_what_is_in_it(
    tmp_path: pathlib.Path, text: str, said: str
) -> None:
    path = written(tmp_path, text)
    with pytest.raises(UnknownConnectionError) as told:
        read(path)
    assert str(told.value).startswith(f"{path}: {said}")
    assert "geheim" not in str(told.value)


def test_a_file_that_is_none(tmp_path: pathlib.Path) -> None:
    pipe, binary = tmp_path / "pipe", tmp_path / "binary"
    os.mkfifo(pipe)
    binary.write_bytes(b"[database]\nconnection = \xff\n")
    for path, said in [
        (tmp_path / "missing", "cannot be read: No such file or directory"),
        (tmp_path, "cannot be read: is not a regular file"),
        (pipe, "cannot be read: is not a regular file"),
        (binary, "is not UTF-8 text"),
    ]:
        with pytest.raises(UnknownConnectionError) as told:
            read(str(path))
        assert str(told.value) == f"{path}: {said}"
