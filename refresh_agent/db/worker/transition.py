"""The way from what a database holds to what is wanted: decisions without side effects.

Nothing is stamped that was not verified: a stamp says "the schema equals that revision", and only a legacy
version that ``legacy_versions`` names says so too. Everything else is refused before anything was changed.

The order of the two engines is migration_cli's: the legacy repository first on the way up, last on the way
down, and the one that does not know the revision goes to its end.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Union

from .protocol import DOWN, STAMP, UP, LegacyStep

BASE = "base"


@dataclass(frozen=True)
class Stamp:
    """Write down, without running anything, that the schema is at this alembic revision; "base": at none."""

    revision: str


@dataclass(frozen=True)
class Upgrade:
    """Let alembic upgrade to this revision."""

    revision: str


@dataclass(frozen=True)
class Downgrade:
    """Let alembic downgrade to this revision."""

    revision: str


Step = Union[LegacyStep, Stamp, Upgrade, Downgrade]


@dataclass(frozen=True)
class Found:
    """What a database holds. ``tables``: any besides the version tables and our own.

    ``strangers`` are the repositories that the legacy version table knows when it does not know ours.
    """

    tables: bool = False
    heads: tuple[str, ...] = ()
    legacy: int | None = None
    strangers: tuple[str, ...] = ()

    @property
    def version(self) -> str:
        """The version for people: "alembic 3fa1c2d4", "migrate 2", "none" (tables alone) or "empty"."""
        if self.heads:
            return "alembic " + "+".join(sorted(self.heads))
        if self.legacy is not None:
            return f"migrate {self.legacy}"
        return "none" if self.tables or self.strangers else "empty"


@dataclass(frozen=True)
class Mapped:
    """One entry of ``legacy_versions``.

    ``obstacle``: why alembic cannot go on upwards from its revision, if it cannot; ``beyond_reach``: why
    alembic cannot come down to it from where the database is; ``undone``: the way down goes below it.
    """

    version: int
    revision: str
    obstacle: str = ""
    beyond_reach: str = ""
    undone: bool = False


@dataclass(frozen=True)
class Legacy:
    """The legacy repository on disk. ``scripts``: the versions that it holds.

    ``defect``: why it cannot be read; that matters only to a database that needs it.
    """

    path: str = ""
    scripts: frozenset[int] = frozenset()
    defect: str = ""

    @property
    def first(self) -> int:
        """The version before its first script: that of an empty database (heat's first script is 73)."""
        return min(self.scripts, default=1) - 1

    @property
    def newest(self) -> int:
        return max(self.scripts, default=0)

    def knows(self, revision: str) -> int | None:
        """``revision`` as one of its versions; None if it is none, and so alembic's affair."""
        if (
            self.path
            and revision.isdecimal()
            and (self.first == int(revision) or int(revision) in self.scripts)
        ):
            return int(revision)
        return None


@dataclass(frozen=True)
class Wanted:
    """What is asked for: an alembic revision (also partial, relative, a branch's), or a legacy version.

    ``behind``: alembic has something to run on the way to ``revision``; ``obstacle``: why it cannot get there
    from where the database is. ``is_an_id``: the alembic tree has a revision of exactly that name, so no
    number that it may be is meant. ``stamping``: the command line that stamps, for the advice.
    """

    revision: str = "head"
    legacy: Legacy = field(default_factory=Legacy)
    mapped: tuple[Mapped, ...] = ()
    behind: bool = True
    obstacle: str = ""
    is_an_id: bool = False
    stamping: str = "refresh-agent db stamp REVISION"

    @property
    def version(self) -> int | None:
        """The version of the repository that is wanted, if it is one."""
        return None if self.is_an_id else self.legacy.knows(self.revision)


@dataclass(frozen=True)
class Plan:
    """The steps in their order; none of them when nothing is to do, or when ``refusal`` says why not."""

    steps: tuple[Step, ...] = ()
    refusal: str = ""
    note: str = ""


def decide_upgrade(found: Found, wanted: Wanted) -> Plan:
    """Return the steps that lead from ``found`` up to ``wanted``, or the refusal. Never goes down."""
    if found.heads:
        return _up_from_alembic(found, wanted)
    if found.legacy is not None:
        return _up_from_legacy(found.legacy, wanted)
    if found.strangers or found.tables:
        return Plan(refusal=_unplaced(found, wanted))
    return _up_from_nothing(wanted)


def _unplaced(found: Found, wanted: Wanted) -> str:
    """Why a database with tables, but without a version of ours, is not touched."""
    if found.strangers:
        others = ", ".join(found.strangers)
        return (
            f"its sqlalchemy-migrate version table knows {others}, but not the repository"
            f" {wanted.legacy.path or '(migrate_repository is not set)'}; correct migrate_repository"
        )
    return (
        "it has tables but no version, so nothing can say which migrations it has had; if its"
        f" schema equals a revision (or base, if none of the tables is its own), say so once with:"
        f" {wanted.stamping}"
    )


def _up_from_alembic(found: Found, wanted: Wanted) -> Plan:
    if wanted.version is not None or not (wanted.behind or wanted.obstacle):
        return Plan()
    note = ""
    if found.legacy is not None:
        note = f"it has both version tables; alembic's counts, sqlalchemy-migrate's {found.legacy} does not"
    if wanted.obstacle:
        return Plan(refusal=wanted.obstacle, note=note)
    return Plan(steps=(Upgrade(wanted.revision),), note=note)


def _up_from_nothing(wanted: Wanted) -> Plan:
    """Straight through alembic, unless its tree begins where the repository ends (``3:base``)."""
    onto = max(
        (entry for entry in wanted.mapped if entry.revision == BASE),
        key=lambda entry: entry.version,
        default=None,
    )
    if wanted.version is not None:
        return _from_the_first(wanted.legacy, wanted.version)
    if onto is not None:
        plan = _from_the_first(wanted.legacy, onto.version, onto.obstacle)
        return plan if plan.refusal else Plan(steps=(*plan.steps, Upgrade(wanted.revision)))
    if wanted.obstacle:
        return Plan(refusal=wanted.obstacle)
    return Plan(steps=(Upgrade(wanted.revision),) if wanted.behind else ())


def _from_the_first(legacy: Legacy, goal: int, obstacle: str = "") -> Plan:
    """From an empty database to a version of the repository, beyond which there may be an obstacle."""
    defect = _unusable(legacy, legacy.first, goal) or (obstacle and f"but {obstacle}")
    if defect:
        return Plan(refusal=f"it is empty, {defect}")
    return Plan(steps=(LegacyStep(UP, goal, control=legacy.first),))


def _up_from_legacy(version: int, wanted: Wanted) -> Plan:
    state = f"it is at sqlalchemy-migrate version {version}"
    if defect := _unusable(wanted.legacy, version, version):
        return Plan(refusal=f"{state}, {defect}")
    if wanted.version is not None:
        return _up_in_legacy(version, wanted.version, wanted.legacy)
    usable = [entry for entry in wanted.mapped if entry.version >= version]
    if not usable:
        mapped = ", ".join(str(entry.version) for entry in wanted.mapped) or "none"
        return Plan(
            refusal=f"{state}, and legacy_versions maps none at or above it (mapped: {mapped}); add the one"
            " whose schema an alembic revision equals"
        )
    baseline = min(usable, key=lambda entry: entry.version)
    state += f", which legacy_versions takes to {baseline.version}:{baseline.revision}"
    if obstacle := _unusable(wanted.legacy, version, baseline.version) or baseline.obstacle:
        return Plan(refusal=f"{state}, but {obstacle.removeprefix('but ')}")
    catch_up = (LegacyStep(UP, baseline.version),) if baseline.version > version else ()
    stamp = () if baseline.revision == BASE else (Stamp(baseline.revision),)
    return Plan(steps=(*catch_up, *stamp, Upgrade(wanted.revision)))


def _up_in_legacy(version: int, goal: int, legacy: Legacy) -> Plan:
    if goal <= version:
        return Plan()
    if defect := _unusable(legacy, version, goal):
        return Plan(refusal=f"it is at sqlalchemy-migrate version {version}, {defect}")
    return Plan(steps=(LegacyStep(UP, goal),))


def _unusable(legacy: Legacy, start: int, end: int) -> str:
    """Why the repository cannot go from ``start`` to ``end``; "" if it can."""
    if not legacy.path:
        return "but migrate_repository and legacy_versions are not set"
    if legacy.defect:
        return f"but {legacy.defect}"
    if start > legacy.newest:
        return f"beyond the newest of {legacy.path}, {legacy.newest}: a later release's"
    missing = sorted(set(range(min(start, end) + 1, max(start, end) + 1)) - legacy.scripts)
    return f"but {legacy.path} has no version {missing[0]}" if missing else ""


def decide_downgrade(found: Found, wanted: Wanted) -> Plan:
    """Return the steps that lead from ``found`` down to ``wanted``, or the refusal. Never goes up.

    "base" goes through both engines: alembic down to the revision that the legacy version equals, then the
    repository down to the version of an empty database.
    """
    if not found.heads and found.legacy is None:
        return Plan() if found.version == "empty" else Plan(refusal=_unplaced(found, wanted))
    goal = wanted.version
    onto = any(entry.revision == BASE for entry in wanted.mapped)
    if wanted.revision == BASE and (found.legacy is not None or onto):
        goal = wanted.legacy.first
    if goal is not None:
        return _down_to_legacy(found, goal, wanted)
    if not found.heads:
        return Plan(
            refusal=f"it is at sqlalchemy-migrate version {found.legacy}, below every alembic revision; name"
            " a version of the legacy repository, or base"
        )
    below = [entry for entry in wanted.mapped if entry.undone]
    if wanted.obstacle or (below and found.legacy is not None):
        return Plan(refusal=wanted.obstacle or _too_low(below[0], wanted.revision))
    return Plan(steps=(Downgrade(wanted.revision),) if wanted.behind else ())


def _too_low(entry: Mapped, revision: str) -> str:
    """Why not: alembic's first revision would drop what the repository has made."""
    return (
        f"{revision} is below {entry.revision}, which legacy version {entry.version} equals; name a version"
        " of the repository, or base, and the repository takes back what it has made"
    )


def _down_to_legacy(found: Found, goal: int, wanted: Wanted) -> Plan:
    if not found.heads:
        version = found.legacy if found.legacy is not None else goal
        return _down_in_legacy((), version, goal, wanted.legacy)
    usable = [
        entry
        for entry in wanted.mapped
        if entry.version >= goal and found.legacy in {None, entry.version} and not entry.beyond_reach
    ]
    if not usable:
        return Plan(refusal=_nothing_usable(found, goal, wanted))
    baseline = min(usable, key=lambda entry: entry.version)
    steps: tuple[Step, ...] = (Downgrade(baseline.revision),)
    if baseline.revision != BASE:
        steps = (*steps, Stamp(BASE))
    return _down_in_legacy(steps, baseline.version, goal, wanted.legacy)


def _nothing_usable(found: Found, goal: int, wanted: Wanted) -> str:
    mapped = ", ".join(str(entry.version) for entry in wanted.mapped) or "none"
    if found.legacy is not None and found.legacy not in {entry.version for entry in wanted.mapped}:
        return (
            f"it is at {found.version}, but its sqlalchemy-migrate version table says {found.legacy}, which"
            f" legacy_versions does not map (mapped: {mapped}); find out which of the two it is, and say so"
            f" with: {wanted.stamping}"
        )
    reasons = "; ".join(entry.beyond_reach for entry in wanted.mapped if entry.beyond_reach)
    return (
        f"it is at {found.version}, and legacy_versions maps nothing from which the legacy repository could"
        f" go on to {goal} (mapped: {mapped}){': ' if reasons else ''}{reasons}"
    )


def _down_in_legacy(steps: tuple[Step, ...], version: int, goal: int, legacy: Legacy) -> Plan:
    state = f"it comes down to sqlalchemy-migrate version {version}"
    if defect := _unusable(legacy, version, goal):
        return Plan(refusal=f"{state}, {defect}")
    if not steps and goal >= version:
        return Plan()
    return Plan(steps=(*steps, LegacyStep(DOWN, goal, control=version)))


def decide_stamp(found: Found, wanted: Wanted) -> Plan:
    """Return the steps that write down that the schema is at ``wanted``: the operator says so.

    A legacy version takes alembic's word back: else that would count, and the stamp would say nothing.
    """
    if wanted.version is not None:
        if wanted.legacy.defect:
            return Plan(refusal=wanted.legacy.defect)
        # Alembic's word is taken back last: without the other one nobody would know where it is.
        unstamp = (Stamp(BASE),) if found.heads else ()
        if found.legacy == wanted.version:
            return Plan(steps=unstamp)
        return Plan(steps=(LegacyStep(STAMP, wanted.version), *unstamp))
    if wanted.obstacle:
        return Plan(refusal=wanted.obstacle)
    return Plan(steps=(Stamp(wanted.revision),))
