"""What has been done to a target, step by step, in its own database: one row a step.

A row is closed in the very transaction that brings its step to an end, and the next one's is opened there. So
a row that is found open belongs to a step that did not come to its end, and says what of it is permanent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, cast

from sqlalchemy import Table, column, delete, func, insert, inspect, select, update
from sqlalchemy import table as lightweight
from sqlalchemy.engine import Connection, Engine

from .database import SQLITE, Database, make_transactional
from .faults import TargetError, foreign
from .following import Follower, Kept
from .ledger_table import (
    IN_ASCII,
    TABLE,
    cause_of,
    has_failed,
    kept_text,
    ledger_table,
    now,
    read_text,
    without_data,
)
from .locks import Holder
from .resume import Half, Resumption
from .sessions import place
from .statements import Entry, shown

ALEMBIC = "alembic"
BACKUP = "backup"
STAMP = "stamp"

BEGUN = "begun"
APPLIED = "applied"
UNDONE = "undone"
GIVEN_UP = "given up"

_MARK = "mark"
"""A row beside a step's, of something that may be permanent; see ``following`` and ``beside``."""
_MARKS = 1000
"""So many a step; their ids are negative."""

_TRANSACTIONAL = frozenset({"innodb", "rocksdb", "tokudb", "ndbcluster", "xtradb", "spider", "sequence", ""})


@dataclass(frozen=True)
class Step:
    """``text`` is for people: "alembic upgrade 5a1e -> 8c44, Whole cents". ``down``: a downgrade."""

    engine: str
    previous: str
    revision: str
    checksum: str
    text: str
    down: bool = False


@dataclass(frozen=True)
class Unfinished:
    """A step that did not come to its end, as the ledger has it.

    ``kept``: the changes that are permanent. ``current``: the one that was begun last, if nobody knows what
    became of it. ``failed`` and ``error``: the statement that failed, or was the last before something else
    failed, and why. ``session``: see ``following.Kept``. ``unseen``: what else is permanent, for people.
    """

    step: Step
    holder: Holder
    kept: tuple[str, ...] = ()
    current: str = ""
    failed: str = ""
    error: str = ""
    begun_at: str = ""
    session: str = ""
    unseen: str = ""

    @property
    def dirty(self) -> bool:
        """Whether a part of it is permanent, or may be."""
        return bool(self.kept or self.current or self.unseen)


class Ledger:
    """The rows of one ``scope``: alembic's version table, as several services may share a database."""

    def __init__(self, database: Database, scope: str, mine: Holder, mask: Callable[[str], str]) -> None:
        self._database = database
        self._scope = scope
        self._mine = mine
        self._mask = mask
        self._row = 0
        self._follower: Follower | None = None
        self._found_table: Table | None = None
        self._place = place(database.url)

    def unfinished(self) -> Unfinished | None:
        """The step that is open; None too when there is no ledger."""
        return cast("Unfinished | None", self._asked(self._unfinished))

    def checksums(self, engine: str = ALEMBIC) -> dict[str, str]:
        """The checksums that the scripts of the applied revisions had."""
        return self._asked(lambda connection: self._checksums(connection, engine)) or {}

    def at_base(self) -> bool:
        """Whether a stamp of base, or a downgrade, was done last: without a head, no table is ours then."""
        return bool(self._asked(self._at_base))

    def backup_since(self, moment: str) -> str:
        """The backup of this run, or one made since ``moment`` after which nothing was done; "" if none."""
        return self._asked(lambda connection: self._backup_since(connection, moment)) or ""

    def prepare(self) -> None:
        """Make the table, if it is not there; under the lock."""

        def make() -> None:
            with self._database.connect() as connection, connection.begin():
                table = self._table(connection)
                if not inspect(connection).has_table(TABLE, schema=table.schema):
                    # The rows have to come and go with the transactions of the steps.
                    make_transactional(table, connection)
                    table.create(connection)

        foreign(make, self._database.file)

    def begin(self, step: Step) -> None:
        """Open the first step's row, before any connection of the migration is open."""
        self._on_its_own(lambda connection: self._begin(connection, step))

    @contextmanager
    def following(
        self,
        connection: Connection | Engine,
        step: Step,
        resumed: Unfinished | None = None,
        say: Callable[[str], None] = lambda _: None,
    ) -> Iterator[None]:
        """Watch the migrating connection (on MariaDB also an Engine) while the step runs; its row is open.

        ``resumed``: this step, of which a part is done already; it is left out, and ``say`` hears of that.
        """
        del step  # whatever runs, it is the step of the open row
        self._stop_following()
        if not self._row:
            self._on_its_own(self._find_row)
        resumption = None
        if resumed is not None:
            done = tuple(Entry.parse(text) for text in resumed.kept)
            half = Half(done, resumed.current, resumed.session, resumed.unseen)
            half.check()
            resumption = Resumption(half, self._mask, say)
        self._follower = follower = Follower(connection, _Notes(self, self._row), resumption)
        follower.start()
        try:
            yield
        finally:
            follower.stop()

    def applied(self, connection: Connection, step: Step, following: Step | None) -> None:
        """Close the step's row and open the next one's, in the transaction that ``connection`` is in.

        Raises TargetError if it was resumed, but did not do what it had done before.
        """
        if self._follower is not None:
            self._follower.finish()
            self._follower.applied(connection)
            self._follower = None
        table = self._table(connection)
        # What was resumed may have been repaired: its script is another one than when it began.
        closed = self._closing(table, APPLIED).values(step=kept_text(step.text), checksum=step.checksum)
        self.run(connection, closed.where(table.c.id == self._row))
        self._row = 0
        if following is not None:
            self._open(connection, following)

    def failed(self, step: Step, error: BaseException) -> None:
        """Write down what failed, after the rollback. An error here must not hide that one."""
        follower = self._stop_following()
        with suppress(TargetError):
            self._on_its_own(lambda connection: self._write_failure(connection, step, error, follower))

    def settle(self, state: str) -> None:
        """Close the row that is open: APPLIED (it was, after all), UNDONE (nothing remained), or GIVEN_UP."""

        def close(connection: Connection) -> None:
            table = self._table(connection)
            self.run(connection, self._closing(table, state).where(*self._is_open(table)))
            self.run(connection, delete(table).where(table.c.id < 0))

        self._on_its_own(close)
        self._row = 0

    def stamped(self, revision: str, connection: Connection | None = None) -> None:
        """Write down that somebody has set the revision; on ``connection`` in its transaction."""
        step = Step(STAMP, "", revision, "", f"stamp {revision}")
        if connection is not None:
            self._insert(connection, step, APPLIED)
        else:
            self._on_its_own(lambda own: self._insert(own, step, APPLIED))

    def backed_up(self, text: str) -> None:
        """Write down that a backup was made in this run."""
        step = Step(BACKUP, "", "", "", text)
        self._on_its_own(lambda connection: self._insert(connection, step, APPLIED))

    # --- on the migrating connection, past all listeners ---------------------------------------------------

    def run(self, connection: Connection, statement: Any) -> list[Any]:
        """Execute on the DBAPI connection itself; the rows, if there are any."""
        compiled = statement.compile(dialect=connection.dialect)
        parameters: Any = dict(compiled.params)
        if compiled.positional:
            parameters = tuple(parameters[name] for name in compiled.positiontup)
        with closing(connection.connection.cursor()) as cursor:
            cursor.execute(str(compiled), parameters)
            return list(cursor.fetchall()) if cursor.description else []

    def shown(self, statement: str) -> str:
        return shown(self._mask(statement))

    def write_kept(self, connection: Connection, row: int, kept: Kept) -> None:
        table = self._table(connection)
        self.run(connection, update(table).values(kept=kept.as_text()).where(table.c.id == row))

    def read_kept(self, connection: Connection, row: int) -> Kept:
        table = self._table(connection)
        rows = self.run(connection, select(table.c.kept).where(table.c.id == row))
        return Kept.parse(rows[0][0]) if rows else Kept()

    def mark(self, connection: Connection, mark: int, text: str) -> None:
        """``mark`` is the new row's id."""
        values = self._values(Step(_MARK, "", "", "", ""), _MARK) | {"failed": kept_text(text)}
        self.run(connection, insert(self._table(connection)).values(id=mark, **values))

    def unmark(self, connection: Connection, mark: int) -> None:
        table = self._table(connection)
        self.run(connection, delete(table).where(table.c.id == mark))

    def mark_alone(self, mark: int, text: str) -> None:
        self._on_its_own(lambda connection: self.mark(connection, mark, text))

    def concerns(self, connection: Connection) -> bool:
        """Whether it leads to the target's database, and is not the worker's own."""
        if connection.get_execution_options().get("refresh_agent_own"):
            return False
        return place(connection.engine.url) == self._place

    def without_transactions(self, connection: Connection, name: str) -> str:
        """The storage engine of a table, on MariaDB, if it has no transactions; else ""."""
        columns: list[Any] = [column(text) for text in ("ENGINE", "TABLE_NAME", "TABLE_SCHEMA")]
        tables = lightweight("TABLES", *columns, schema="information_schema")
        there = (tables.c["TABLE_NAME"] == name, tables.c["TABLE_SCHEMA"] == func.database())
        rows = self.run(connection, select(tables.c.ENGINE).where(*there))
        engine = str(rows[0][0] or "") if rows else ""
        return "" if engine.lower() in _TRANSACTIONAL else engine

    def nothing(self, connection: Connection) -> str:
        """An UPDATE of no row: every driver takes that in every way."""
        table = connection.dialect.identifier_preparer.format_table(self._table(connection))
        return f"UPDATE {table} SET id = id WHERE 1 = 0"  # noqa: S608 - quoted

    @property
    def backend(self) -> str:
        return self._database.backend

    def _begin(self, connection: Connection, step: Step) -> None:
        table = self._table(connection)
        self.run(connection, delete(table).where(table.c.id < 0))
        self._open(connection, step)

    def _open(self, connection: Connection, step: Step) -> None:
        self._row = self._insert(connection, step, BEGUN)

    def _insert(self, connection: Connection, step: Step, state: str) -> int:
        """The id of the new row. Only who has the lock writes, so the greatest one stays."""
        table = self._table(connection)
        row = 1 + max(0, int(self.run(connection, select(func.max(table.c.id)))[0][0] or 0))
        self.run(connection, insert(table).values(id=row, **self._values(step, state)))
        return row

    def _values(self, step: Step, state: str) -> dict[str, Any]:
        moment = now()
        return {
            "scope": self._scope,
            "engine": step.engine,
            "direction": "down" if step.down else "up",
            "step": kept_text(step.text),
            "previous": kept_text(step.previous),
            "revision": kept_text(step.revision),
            "checksum": step.checksum,
            "state": state,
            "kept": "",
            "failed": "",
            "error": "",
            "host": self._mine.host,
            "pid": self._mine.pid,
            "run": self._mine.run,
            "begun_at": moment,
            "ended_at": "" if state == BEGUN else moment,
        }

    # --- on connections of its own -------------------------------------------------------------------------

    def _on_its_own(self, action: Callable[[Connection], object]) -> None:
        """Write and commit. Raises TargetError."""

        def act() -> None:
            with self._database.connect() as connection:
                action(connection)
                # Past SQLAlchemy, as what was executed.
                connection.connection.commit()

        foreign(act, self._database.file)

    def _asked(self, action: Callable[[Connection], Any]) -> Any:
        """Only read; None if there is no ledger. Raises TargetError."""

        def ask() -> Any:
            with self._database.connect() as connection:
                table = self._table(connection)
                if not inspect(connection).has_table(TABLE, schema=table.schema):
                    return None
                return action(connection)

        return foreign(ask, self._database.file)

    def _find_row(self, connection: Connection) -> None:
        found = self._open_row(connection)
        self._row = int(found["id"]) if found else 0

    def _open_row(self, connection: Connection) -> Mapping[str, Any] | None:
        table = self._table(connection)
        rows = self.run(connection, select(*table.c).where(*self._is_open(table)).order_by(table.c.id.desc()))
        if not rows:
            return None
        found = dict(zip((column.name for column in table.c), rows[0]))
        return found | {name: read_text(found[name]) for name in IN_ASCII}

    def _unfinished(self, connection: Connection) -> Unfinished | None:
        row = self._open_row(connection)
        if row is None:
            return None
        kept = Kept.parse(row["kept"])
        unseen = self._unseen(connection, int(row["id"]))
        down = row["direction"] == "down"
        step = Step(row["engine"], row["previous"], row["revision"], row["checksum"], row["step"], down)
        holder = Holder(row["host"], row["pid"], row["run"], self._mine.target, row["begun_at"])
        return Unfinished(
            step,
            holder,
            tuple(map(str, kept.done)),
            kept.current or unseen,
            row["failed"],
            row["error"],
            row["begun_at"],
            kept.session,
            unseen,
        )

    def _unseen(self, connection: Connection, row: int) -> str:
        """What the marks of a step say that are there although the step has not come to its end."""
        table = self._table(connection)
        its_own = table.c.id.between(-(row + 1) * _MARKS + 1, -row * _MARKS)
        rows = self.run(connection, select(table.c.failed).where(its_own).order_by(table.c.id.desc()))
        return read_text(rows[0][0]) if rows else ""

    def _checksums(self, connection: Connection, engine: str) -> dict[str, str]:
        table = self._table(connection)
        rows = self.run(
            connection,
            select(table.c.revision, table.c.checksum, table.c.direction)
            .where(table.c.scope == self._scope, table.c.engine == engine, table.c.state == APPLIED)
            .order_by(table.c.id),
        )
        found: dict[str, str] = {}
        for kept_revision, checksum, direction in rows:
            revision = read_text(kept_revision)
            found[revision] = checksum
            if direction == "down":
                del found[revision]
        return found

    def _at_base(self, connection: Connection) -> bool:
        table = self._table(connection)
        done = (table.c.scope == self._scope, table.c.state == APPLIED, table.c.engine != BACKUP)
        columns = (table.c.engine, table.c.revision, table.c.direction)
        rows = self.run(connection, select(*columns).where(*done).order_by(table.c.id.desc()).limit(1))
        return bool(rows) and ((rows[0][0], rows[0][1]) == (STAMP, "base") or rows[0][2] == "down")

    def _backup_since(self, connection: Connection, moment: str) -> str:
        table = self._table(connection)
        done = (table.c.scope == self._scope, table.c.state == APPLIED)
        columns = (table.c.engine, table.c.step, table.c.run, table.c.begun_at)
        rows = self.run(connection, select(*columns).where(*done).order_by(table.c.id.desc()))
        good = [row for row in rows if row[0] == BACKUP and row[2] == self._mine.run]
        if rows and rows[0][0] == BACKUP and rows[0][3] >= moment:
            good = [rows[0]]
        return read_text(good[0][1]) if good else ""

    def _write_failure(
        self, connection: Connection, step: Step, error: BaseException, follower: Follower | None
    ) -> None:
        row = self._open_row(connection)
        if row is None:
            return
        cause = cause_of(error)
        statement = getattr(cause, "statement", None) or (follower.last if follower else "")
        text = shown(self._mask(without_data(cause)))
        if (row["engine"], row["revision"], row["direction"]) != (
            step.engine,
            step.revision,
            "down" if step.down else "up",
        ):
            # env.py has one transaction around all: this step's row was rolled back, too.
            text = f"{step.text}: {text}"
        kept = Kept.parse(row["kept"])
        if follower is not None and follower.written == row["kept"] != "":
            kept = follower.kept
        if kept.current and kept.current == self.shown(statement) and has_failed(cause, statement):
            kept = replace(kept, current="")
        table = self._table(connection)
        values = {
            "failed": kept_text(self.shown(statement) if statement else row["failed"]),
            "error": kept_text(text),
            "kept": kept.as_text() if kept != Kept() else "",
        }
        self.run(connection, update(table).values(**values).where(table.c.id == row["id"]))

    def _stop_following(self) -> Follower | None:
        """Also of a step whose ``with`` has not ended: alembic leaves its generator lying about."""
        follower, self._follower = self._follower, None
        if follower is not None:
            follower.stop()
        return follower

    def _is_open(self, table: Table) -> tuple[Any, Any]:
        return table.c.scope == self._scope, table.c.state == BEGUN

    def _closing(self, table: Table, state: str) -> Any:
        return update(table).values(state=state, ended_at=now())

    def _table(self, connection: Connection) -> Table:
        """With its schema: env.py may set another search_path, or USE another database."""
        if self._found_table is None:
            schema = None if self.backend == SQLITE else connection.dialect.default_schema_name
            self._found_table = ledger_table(schema)
        return self._found_table


class _Notes:
    """One row, for who follows its step."""

    def __init__(self, ledger: Ledger, row: int) -> None:
        self.backend = ledger.backend
        self.shown = ledger.shown
        self.nothing = ledger.nothing
        self.concerns = ledger.concerns
        self.without_transactions = ledger.without_transactions
        self._ledger = ledger
        self._row = row

    def write(self, connection: Connection, kept: Kept) -> None:
        self._ledger.write_kept(connection, self._row, kept)

    def read(self, connection: Connection) -> Kept:
        return self._ledger.read_kept(connection, self._row)

    def mark(self, connection: Connection, number: int, text: str) -> None:
        self._ledger.mark(connection, self._id(number), text)

    def unmark(self, connection: Connection, number: int) -> None:
        self._ledger.unmark(connection, self._id(number))

    def mark_alone(self, number: int, text: str) -> None:
        self._ledger.mark_alone(self._id(number), text)

    def _id(self, number: int) -> int:
        return -self._row * _MARKS - number
