"""From bytes to lines that can be logged."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refresh_agent.lines import LINE_LIMIT, Lines
from refresh_agent.model import Stream

OUT, ERR = Stream.STDOUT, Stream.STDERR


def lines_of(*pieces: bytes, limit: int = LINE_LIMIT) -> list[str]:
    told: list[str] = []
    lines = Lines(lambda _stream, text: told.append(text), limit)
    for piece in pieces:
        lines.feed(OUT, piece)
    lines.flush()
    return told


@given(
    data=st.lists(st.sampled_from(["a", "ü", "\n", "✓", "\n\n", "b" * 9])).map(
        lambda parts: "".join(parts).encode()
    ),
    cuts=st.lists(st.integers(0, 40), max_size=5),
)
def test_wherever_it_is_cut_the_lines_are_the_same(data: bytes, cuts: list[int]) -> None:
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    pieces = [data[start:end] for start, end in itertools.pairwise(places)]
    assert lines_of(*pieces) == data.decode().removesuffix("\n").split("\n") * bool(data)


@pytest.mark.parametrize("size", [LINE_LIMIT - 1, LINE_LIMIT, LINE_LIMIT + 1, 3 * LINE_LIMIT + 5])
@pytest.mark.parametrize("end", [b"", b"\n"])
def test_a_line_that_is_too_long_comes_in_pieces(size: int, end: bytes) -> None:
    told = lines_of(b"x" * size + end)
    assert "".join(told) == "x" * size
    assert all(len(line) == LINE_LIMIT for line in told[:-1])
    assert len(told[-1]) <= LINE_LIMIT


def test_pieces_are_cut_between_characters() -> None:
    told = lines_of(b"x", "ü".encode() * 10, limit=4)
    assert told == ["xü", "üü", "üü", "üü", "üü", "ü"]


def test_bytes_that_are_no_characters_are_cut_anywhere() -> None:
    assert lines_of(b"\x80" * 6, limit=4) == [r"\x80\x80\x80\x80", r"\x80\x80"]


def test_streams_do_not_mix() -> None:
    told: list[tuple[Stream, str]] = []
    lines = Lines(lambda *line: told.append(line))
    lines.feed(OUT, b"o")
    lines.feed(ERR, b"e")
    lines.feed(OUT, b"ut\n")
    lines.flush()
    assert told == [(OUT, "out"), (ERR, "e")]
