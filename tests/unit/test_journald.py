"""systemd's journal over a real datagram socket; the real journald is in tests/e2e/systemd."""

import pathlib
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refresh_agent.journald import CUT_TO, Entry, Journald
from tests.fields import StandIn, fields
from tests.unit.support import open_descriptors

SHORT = 0.2
"""Seconds of patience where a test waits for its end."""


@pytest.fixture
def listening(tmp_path: pathlib.Path) -> Iterator[StandIn]:
    stand_in = StandIn(tmp_path / "socket")
    yield stand_in
    stand_in.close()


@pytest.fixture
def journald(tmp_path: pathlib.Path) -> Iterator[Journald]:
    journald = Journald(str(tmp_path / "socket"), SHORT)
    yield journald
    journald.close()


def told(number: int) -> Entry:
    return Entry(6, f"line {number}")


def test_a_line_is_one_datagram_of_fields(listening: StandIn, journald: Journald) -> None:
    journald.tell(Entry(4, "trouble", (("HOOK", "50-ü"), ("PHASE", "configure"))))
    assert listening.entries() == [
        {"MESSAGE": "trouble", "PRIORITY": "4", "HOOK": "50-ü", "PHASE": "configure"}
    ]


TEXT = st.text(st.characters(), max_size=20) | st.sampled_from(
    ["", "\n", "a\nPRIORITY=0", "\nHOOK=forged\n", "=", "a\n\0\0\0\0\0\0\0\0", "\udcff\nX=1"]
)


@given(message=TEXT, hook=TEXT)
def test_no_value_forges_a_field_or_changes_another(message: str, hook: str) -> None:
    came = fields(Entry(6, message, (("HOOK", hook), ("PHASE", "configure"))).encoded())
    as_text = [value.encode("utf-8", "backslashreplace").decode() for value in (message, hook)]
    assert came == [("MESSAGE", as_text[0]), ("PRIORITY", "6"), ("HOOK", as_text[1]), ("PHASE", "configure")]


def test_a_message_that_no_datagram_holds_is_cut_and_says_so(listening: StandIn, journald: Journald) -> None:
    length = 32 * 2**20
    journald.tell(Entry(6, "x" * length, (("HOOK", "10-a"),)))
    (entry,) = listening.entries()
    assert entry["MESSAGE"].startswith("x" * CUT_TO + " [cut: ")
    assert str(length) in entry["MESSAGE"]
    assert entry["HOOK"] == "10-a"


class TestNobodyListens:
    def test_without_a_socket_lines_go_to_standard_error_with_their_priority(
        self, journald: Journald, capfd: pytest.CaptureFixture[str]
    ) -> None:
        journald.tell(Entry(3, "it failed\nTraceback", (("HOOK", "10-a"),)))
        assert capfd.readouterr().err == "<3>it failed\n<3>Traceback\n"

    def test_a_socket_that_its_owner_has_left_is_as_good_as_none(
        self, listening: StandIn, journald: Journald, capfd: pytest.CaptureFixture[str]
    ) -> None:
        listening.close()
        journald.tell(told(1))
        assert capfd.readouterr().err == "<6>line 1\n"

    def test_a_socket_that_takes_its_place_is_found(
        self, listening: StandIn, journald: Journald, tmp_path: pathlib.Path
    ) -> None:
        journald.tell(told(1))
        listening.close()
        (tmp_path / "socket").unlink()
        successor = StandIn(tmp_path / "socket")
        journald.tell(told(2))
        assert successor.messages() == ["line 2"]
        successor.close()

    def test_nor_does_a_standard_error_that_nobody_reads_hold_it_up(self, tmp_path: pathlib.Path) -> None:
        program = (
            "from refresh_agent.journald import Entry, Journald\n"
            f"journald = Journald({str(tmp_path / 'missing')!r}, {SHORT})\n"
            "for number in range(5000): journald.tell(Entry(6, 'x' * 100))\n"
            "print('done', flush=True)\n"
        )
        command = [sys.executable, "-c", program]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            assert process.stdout.readline() == b"done\n"  # before anything of its errors is read
            assert process.stderr.read().startswith(b"<6>xxx")


class TestItDoesNotRead:
    LINES = 2000

    def test_only_the_first_line_that_is_not_taken_waits(
        self, listening: StandIn, journald: Journald
    ) -> None:
        began = time.monotonic()
        for number in range(self.LINES):
            journald.tell(told(number))
        assert SHORT <= time.monotonic() - began < 10 * SHORT

    def test_what_was_lost_is_counted_and_told_before_the_next_line(
        self, listening: StandIn, journald: Journald
    ) -> None:
        for number in range(self.LINES):
            journald.tell(told(number))
        taken = listening.messages()
        assert taken == [f"line {number}" for number in range(len(taken))]
        journald.tell(told(self.LINES))
        lost, after = listening.entries()
        assert lost["MESSAGE"].startswith(f"{self.LINES - len(taken)} lines of the log were lost: ")
        assert lost["PRIORITY"] == "4"
        assert after["MESSAGE"] == f"line {self.LINES}"
        journald.tell(told(self.LINES + 1))
        assert listening.messages() == [f"line {self.LINES + 1}"]  # it is told once

    def test_the_loss_is_told_at_the_end_too_if_nothing_follows(
        self, listening: StandIn, journald: Journald
    ) -> None:
        for number in range(self.LINES):
            journald.tell(told(number))
        listening.entries()
        journald.tell_loss()
        (message,) = listening.messages()
        assert "lines of the log were lost" in message
        journald.tell_loss()
        assert listening.messages() == []


def test_it_leaves_no_descriptor_behind(tmp_path: pathlib.Path) -> None:
    before = open_descriptors()
    Journald(str(tmp_path / "socket")).close()
    assert open_descriptors() == before
