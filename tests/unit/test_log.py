"""The log in its three forms, and what each line is known to be about."""

import calendar
import json
import logging
import os
import pathlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refresh_agent import journald, log
from refresh_agent.journal import Journal
from refresh_agent.model import LogFormat, MigrationOutcome, MigrationResult, Stream, Trigger
from refresh_agent.plan import Action, Decision
from refresh_agent.recorder import RunRecorder
from tests.fields import StandIn

LOG = logging.getLogger("refresh_agent")
RUN = "0123456789abcdef0123456789abcdef"


@pytest.fixture(autouse=True)
def _no_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests may be run by a service themselves."""
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)


class Service(StandIn):
    """systemd has given its standard error to the journal, that is to this."""

    def __init__(self, path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(path)
        self._monkeypatch = monkeypatch

    def set_up(self, level: str = "INFO") -> None:
        """Only now, since pytest gives each phase of a test another standard error."""
        status = os.fstat(2)
        self._monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        log.set_up(level)


@pytest.fixture
def listening(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    # A short path: the name of a socket has 107 bytes at most.
    service = Service(tmp_path_factory.mktemp("log") / "socket", monkeypatch)
    monkeypatch.setattr(journald, "SOCKET", service.path)
    yield service
    log.use(LogFormat.JSON)  # another handler, so that this one's socket is closed
    service.close()


@pytest.fixture
def recorder(journal: Journal) -> RunRecorder:
    run = journal.begin(Decision(Action.RUN, "changed: a", Trigger.CHANGE), (("a", "1"),))
    return RunRecorder(journal, run, 1, None)


class Lines:
    """What has come on standard error since it was asked last."""

    def __init__(self, captured: pytest.CaptureFixture[str]) -> None:
        self._captured = captured

    def __call__(self) -> list[str]:
        return self._captured.readouterr().err.splitlines()

    def objects(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self()]


@pytest.fixture
def stderr(capfd: pytest.CaptureFixture[str]) -> Lines:
    return Lines(capfd)


@pytest.fixture
def far_away(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Where the local time is another than in the log."""
    with monkeypatch.context() as within:
        within.setenv("TZ", "XXX-9")
        time.tzset()
        yield
    time.tzset()


class TestText:
    def test_is_a_line_for_people_even_if_the_message_has_several(self, stderr: Lines) -> None:
        log.set_up("INFO")
        log.use(LogFormat.TEXT)
        LOG.warning("one\nERROR two\x1b[0m", extra=log.of(phase="configure", hook="10-a"))
        (line,) = stderr()
        assert line.endswith(" WARNING one\\nERROR two\\x1b[0m")
        assert not log.tells_streams()

    def test_a_complaint_is_plain_and_told_at_every_level(self, stderr: Lines) -> None:
        log.set_up("CRITICAL")
        log.complain("error: a\tb\nc")
        assert stderr() == ["refresh-agent: error: a\tb\\nc"]

    @pytest.mark.parametrize("stream", ["", "1:2", "no:number", "8:"])
    def test_stays_where_the_journal_listens_to_another_stream(
        self, listening: Service, stderr: Lines, monkeypatch: pytest.MonkeyPatch, stream: str
    ) -> None:
        monkeypatch.setenv("JOURNAL_STREAM", stream)
        log.set_up("INFO")
        LOG.info("hello")
        assert stderr()[0].endswith("INFO    hello")
        assert listening.entries() == []


def in_json(level: str = "DEBUG") -> None:
    log.set_up(level)
    log.use(LogFormat.JSON)


class TestJson:
    def test_tells_when_what_and_about_what(self, stderr: Lines, far_away: None) -> None:
        in_json()
        LOG.info("%s is done", "it", extra=log.of(run_id=RUN, phase="configure", hook="10-a"))
        (told,) = stderr.objects()
        moment = told.pop("time")
        assert moment.endswith("Z")
        seconds = calendar.timegm(time.strptime(moment[:19], "%Y-%m-%dT%H:%M:%S"))
        assert abs(seconds + float(moment[19:-1]) - time.time()) < 5
        assert told == {
            "level": "info",
            "message": "it is done",
            "run_id": RUN,
            "phase": "configure",
            "hook": "10-a",
            "stream": "agent",
        }

    @pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
    def test_tells_the_level(self, stderr: Lines, level: str) -> None:
        in_json()
        getattr(LOG, level)("hello")
        assert [told["level"] for told in stderr.objects()] == [level]

    def test_a_line_of_a_hook_has_its_stream_and_that_gives_the_level(self, stderr: Lines) -> None:
        in_json()
        for stream in Stream:
            LOG.info("hello", extra=log.of(stream=stream))
        assert [(told["stream"], told["level"]) for told in stderr.objects()] == [
            ("stdout", "info"),
            ("stderr", "error"),
        ]
        assert log.tells_streams()

    def test_a_traceback_is_part_of_its_line(self, stderr: Lines) -> None:
        in_json()

        def fail() -> None:
            raise ValueError("half a pair: \udc80")

        try:
            fail()
        except ValueError:
            LOG.debug("internal error", exc_info=True)
        (told,) = stderr.objects()
        assert told["message"].startswith("internal error\nTraceback")
        assert told["message"].endswith("half a pair: \\udc80")

    def test_a_complaint_is_a_line_like_all_others_at_every_level(self, stderr: Lines) -> None:
        in_json("CRITICAL")
        log.complain("error: no such option")
        (told,) = stderr.objects()
        assert (told["level"], told["message"]) == ("error", "error: no such option")

    @given(st.text(st.characters(), max_size=30), st.text(st.characters(), max_size=10))
    def test_whatever_it_quotes_is_one_line_that_every_reader_of_json_takes(
        self, message: str, hook: str
    ) -> None:
        in_json()
        record = LOG.makeRecord("x", logging.INFO, "", 0, message, (), None, extra=log.of(hook=hook))
        (handler,) = [each for each in logging.getLogger().handlers if isinstance(each, log._JsonHandler)]
        line = handler.format(record)
        assert line.isascii()
        assert line.isprintable()
        told = json.loads(line)
        told["message"].encode()  # or a surrogate is left alone
        assert told.get("hook", "") == log.shown(hook)


class TestJournal:
    def test_gets_fields_and_nothing_is_written_to_standard_error(
        self, listening: Service, stderr: Lines
    ) -> None:
        listening.set_up()
        LOG.info("done", extra=log.of(run_id=RUN, phase="configure", hook="10-a", target="shop"))
        assert listening.entries() == [
            {
                "MESSAGE": "done",
                "PRIORITY": "6",
                "SYSLOG_IDENTIFIER": "refresh-agent",
                "RUN_ID": RUN,
                "PHASE": "configure",
                "HOOK": "10-a",
                "STREAM": "agent",
                "TARGET": "shop",
            }
        ]
        assert stderr() == []
        assert log.tells_streams()

    def test_the_priority_is_that_of_the_level(self, listening: Service) -> None:
        listening.set_up("DEBUG")
        for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL):
            LOG.log(level, "hello")
        assert [entry["PRIORITY"] for entry in listening.entries()] == ["7", "6", "4", "3", "2"]

    def test_what_a_hook_writes_has_the_priority_of_its_stream(self, listening: Service) -> None:
        listening.set_up()
        for stream in Stream:
            LOG.info("hello", extra=log.of(stream=stream))
        assert [(entry["STREAM"], entry["PRIORITY"]) for entry in listening.entries()] == [
            ("stdout", "6"),
            ("stderr", "3"),
        ]

    def test_a_complaint_is_an_error_there_at_every_level(self, listening: Service, stderr: Lines) -> None:
        listening.set_up("CRITICAL")
        log.complain("error: no such option")
        (entry,) = listening.entries()
        assert (entry["MESSAGE"], entry["PRIORITY"]) == ("error: no such option", "3")
        assert stderr() == []

    def test_a_hook_whose_name_has_lines_forges_nothing(self, listening: Service) -> None:
        listening.set_up()
        LOG.info("a\nPRIORITY=0", extra=log.of(hook="10-a\nRUN_ID=forged"))
        (entry,) = listening.entries()
        assert (entry["MESSAGE"], entry["HOOK"]) == ("a\\nPRIORITY=0", "10-a\\nRUN_ID=forged")
        assert "RUN_ID" not in entry

    def test_a_line_that_cannot_be_formatted_ends_nothing(self, listening: Service) -> None:
        listening.set_up()
        LOG.info("%d", "no number")
        LOG.info("next")
        assert listening.messages() == ["next"]

    def test_the_last_word_of_a_log_that_was_lost_is_how_much(
        self, listening: Service, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        listening.set_up()
        for number in range(2000):
            LOG.info("%d", number)
        listening.entries()
        for handler in logging.getLogger().handlers:
            handler.flush()  # as the interpreter does at its end
        (entry,) = listening.entries()
        assert "lines of the log were lost" in entry["MESSAGE"]
        assert entry["SYSLOG_IDENTIFIER"] == "refresh-agent"

    def test_json_is_json_there_too_and_text_is_fields_again(self, listening: Service, stderr: Lines) -> None:
        listening.set_up()
        log.use(LogFormat.JSON)
        LOG.info("as JSON")
        log.use(LogFormat.TEXT)
        LOG.info("as fields")
        assert [told["message"] for told in stderr.objects()] == ["as JSON"]
        assert listening.messages() == ["as fields"]


def test_set_up_twice_each_line_is_told_once(stderr: Lines) -> None:
    for log_format in (LogFormat.TEXT, LogFormat.JSON, LogFormat.JSON, LogFormat.TEXT):
        log.set_up("INFO")
        log.use(log_format)
        LOG.info("hello")
    assert len(stderr()) == 4


class TestWhatALineIsAbout:
    def test_all_that_the_thread_of_a_run_logs_is_about_that_run(self, listening: Service) -> None:
        listening.set_up()
        LOG.info("before")
        with log.about(RUN):
            LOG.info("within")
            LOG.info("of a hook", extra=log.of(hook="10-a"))
            other = threading.Thread(target=LOG.info, args=("of a source, meanwhile",))
            other.start()
            other.join()
        LOG.info("after")
        assert [(entry["MESSAGE"], entry.get("RUN_ID", "")) for entry in listening.entries()] == [
            ("before", ""),
            ("within", RUN),
            ("of a hook", RUN),
            ("of a source, meanwhile", ""),
            ("after", ""),
        ]

    def test_what_a_hook_has_left_behind_is_still_heard_as_that_hook_of_that_run(
        self, listening: Service, recorder: RunRecorder
    ) -> None:
        listening.set_up()
        listener = recorder.listener("configure", "10-a")
        other = threading.Thread(target=listener.feed, args=(Stream.STDERR, b"late\n"))
        other.start()
        other.join()
        (entry,) = listening.entries()
        assert entry["MESSAGE"] == "configure/10-a| late"
        assert (entry["RUN_ID"], entry["PHASE"], entry["HOOK"], entry["STREAM"], entry["PRIORITY"]) == (
            recorder.run_id,
            "configure",
            "10-a",
            "stderr",
            "3",
        )

    def test_what_becomes_of_a_database_has_its_name(self, listening: Service, recorder: RunRecorder) -> None:
        listening.set_up()
        recorder.migrated(MigrationResult("shop", MigrationOutcome.DONE, "empty", "alembic 1", seconds=1))
        recorder.migrated(MigrationResult("stock", MigrationOutcome.FAILED, message="stock: it is torn"))
        done, failed = listening.entries()
        assert done["MESSAGE"] == "migration: shop: empty -> alembic 1, done after 1.00 s"
        assert (done["TARGET"], done["PHASE"], done["PRIORITY"]) == ("shop", "migration", "6")
        assert failed["MESSAGE"] == "migration: stock: it is torn (failed after 0.00 s)"
        assert (failed["TARGET"], failed["PRIORITY"]) == ("stock", "3")
