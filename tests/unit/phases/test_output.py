"""What becomes of a hook's output."""

import threading

import pytest

from refresh_agent.lines import Lines
from refresh_agent.model import Stream
from refresh_agent.phases.output import HeldBack, Output, Tail
from refresh_agent.redact import Masker

OUT, ERR = Stream.STDOUT, Stream.STDERR


def test_what_is_told_and_kept_is_masked_and_streams_do_not_mix() -> None:
    told: list[tuple[Stream, str]] = []
    output = Output(Masker(["password-1"]), 100, Lines(lambda *line: told.append(line)))
    output(OUT, b"out passw")
    output(ERR, b"err password-1\n")
    output(OUT, b"ord-1\nand")
    assert told == [(ERR, "err ***"), (OUT, "out ***")]
    output.flush()
    assert told[2:] == [(OUT, "and")]
    assert output.tail.bytes() == b"err ***\nout ***\nand"


def test_its_end_may_be_told_while_what_it_left_behind_writes() -> None:
    told: list[tuple[Stream, str]] = []
    threads: list[threading.Thread] = []

    def tell(stream: Stream, text: str) -> None:
        told.append((stream, text))
        if not threads:
            threads.append(threading.Thread(target=lambda: output(ERR, b"meanwhile\n")))
            threads[0].start()
            threads[0].join(0.1)  # it has to wait; without a lock it would be through by now

    output = Output(Masker(), 100, Lines(tell))
    output(OUT, b"no end")
    output.flush()
    threads[0].join()
    assert told == [(OUT, "no end"), (ERR, "meanwhile")]


def test_what_is_held_back_is_masked_with_what_was_learnt_since() -> None:
    told: list[str] = []
    mask = Masker()
    held = HeldBack(Output(mask, 100, Lines(lambda _stream, text: told.append(text))))
    held(ERR, b"password-1 and ")
    assert told == []
    mask.learn(["password-1"])
    held.flush()
    assert told == ["*** and "]


def test_not_everything_can_be_held_back() -> None:
    told: list[str] = []
    held = HeldBack(Output(Masker(), 100, Lines(lambda _stream, text: told.append(text))))
    for _ in range(5):
        held(OUT, b"x" * 2**18 + b"\n")
    assert sum(map(len, told)) == 5 * 2**18


def test_what_comes_after_the_end_is_told_too() -> None:
    """A background process that the hook has left may write on."""
    told: list[tuple[Stream, str]] = []
    output = Output(Masker(), 100, Lines(lambda *line: told.append(line)))
    output(OUT, b"one")
    output.flush()
    output(OUT, b"two\n")
    assert told == [(OUT, "one"), (OUT, "two")]


@pytest.mark.parametrize(
    ("limit", "lines", "kept"),
    [
        (10, ["one", "two", "three"], b"two\nthree\n"),
        (0, ["one"], b""),
        (100, [], b""),
        (6, ["short", "a long line"], b" line\n"),
        (4, ["a", "b", "c"], b"b\nc\n"),
        (4, ["ü" * 10], "ü\n".encode()),
        (10, ["a" * 9], b"a" * 9 + b"\n"),
    ],
)
def test_the_end_of_the_output_is_kept_within_its_limit(limit: int, lines: list[str], kept: bytes) -> None:
    tail = Tail(limit)
    for line in lines:
        tail.add(f"{line}\n".encode())
    assert tail.bytes() == kept
    assert len(kept) <= limit


def test_much_output_does_not_stay_in_memory() -> None:
    tail = Tail(1000)
    for number in range(10_000):
        tail.add(f"line {number}\n".encode())
    assert tail.bytes().endswith(b"line 9999\n")
    assert len(tail.bytes()) == 1000
