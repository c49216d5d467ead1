"""Bytes to the standard streams."""

import os
import pathlib
import threading

import pytest

from refresh_agent.cli.passing_on import PassedOn, one_place, write
from refresh_agent.model import Stream


def test_each_stream_goes_to_ours(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    listener = PassedOn()
    listener.feed(Stream.STDOUT, b"\xff\0 no end")
    listener.feed(Stream.STDERR, b"complaint")
    listener.flush()
    assert capfdbinary.readouterr() == (b"\xff\0 no end", b"complaint")


def test_the_same_file_behind_both_is_seen(tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert not one_place()
    kept = os.dup(2)
    os.dup2(1, 2)
    try:
        assert one_place()
    finally:
        os.dup2(kept, 2)
        os.close(kept)


@pytest.mark.parametrize("blocking", [True, False])
def test_all_is_written_however_slowly_it_is_read(blocking: bool) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, blocking)
    data = os.urandom(1_000_000)
    got = bytearray()

    def read() -> None:
        while piece := os.read(reader, 10_000):
            got.extend(piece)

    thread = threading.Thread(target=read)
    thread.start()
    write(writer, data)
    os.close(writer)
    thread.join(10)
    os.close(reader)
    assert bytes(got) == data


def test_a_reader_that_is_gone_is_no_failure() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    write(writer, b"lost")
    os.close(writer)
