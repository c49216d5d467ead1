"""The way from what a database holds to the revision that is wanted: a decision without side effects.

Nothing is stamped that was not verified: a stamp says "the schema equals that revision", and only a legacy
version that ``legacy_versions`` names says so too. Everything else is refused before anything was changed.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CatchUp:
    """Let the legacy repository upgrade to this version."""

    version: int


@dataclass(frozen=True)
class Stamp:
    """Write down, without running anything, that the schema is at this alembic revision."""

    revision: str


@dataclass(frozen=True)
class Upgrade:
    """Let alembic upgrade to this revision."""

    revision: str


@dataclass(frozen=True)
class Found:
    """What a database holds. ``tables``: any besides the version tables.

    ``strangers`` are the repositories that the legacy version table knows when it does not know ours.
    ``behind``: alembic has something to run; ``obstacle``: why alembic cannot go from here, if it cannot.
    """

    tables: bool = False
    heads: tuple[str, ...] = ()
    legacy: int | None = None
    strangers: tuple[str, ...] = ()
    behind: bool = True
    obstacle: str = ""

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
    """One entry of ``legacy_versions``, and why alembic cannot go on from its revision, if it cannot."""

    version: int
    revision: str
    obstacle: str = ""


@dataclass(frozen=True)
class Wanted:
    """What the target asks for. ``scripts``: the versions that the legacy repository holds.

    ``defect``: why the legacy repository cannot be read; it matters only to a database that needs it.
    ``stamping``: the command line that stamps, for the advice.
    """

    revision: str = "head"
    repository: str = ""
    mapped: tuple[Mapped, ...] = ()
    scripts: frozenset[int] = frozenset()
    defect: str = ""
    stamping: str = "alembic stamp REVISION"


@dataclass(frozen=True)
class Plan:
    """The steps in their order; none of them when nothing is to do, or when ``refusal`` says why not."""

    steps: tuple[CatchUp | Stamp | Upgrade, ...] = ()
    refusal: str = ""
    note: str = ""


def decide(found: Found, wanted: Wanted) -> Plan:
    """Return the steps that lead from ``found`` to ``wanted``, or the refusal."""
    if found.heads:
        return _from_alembic(found, wanted)
    if found.legacy is not None:
        return _from_legacy(found.legacy, wanted)
    if found.strangers:
        others = ", ".join(found.strangers)
        return Plan(
            refusal=f"its sqlalchemy-migrate version table knows {others}, but not the repository"
            f" {wanted.repository or '(migrate_repository is not set)'}; correct migrate_repository"
        )
    if found.tables:
        return Plan(
            refusal="it has tables but no version, so nothing can say which migrations it has had; if its"
            f" schema equals an alembic revision, say so once with: {wanted.stamping}"
        )
    if found.obstacle:
        return Plan(refusal=found.obstacle)
    return Plan(steps=(Upgrade(wanted.revision),) if found.behind else ())


def _from_alembic(found: Found, wanted: Wanted) -> Plan:
    if not found.behind and not found.obstacle:
        return Plan()
    note = ""
    if found.legacy is not None:
        note = f"it has both version tables; alembic's counts, sqlalchemy-migrate's {found.legacy} does not"
    if found.obstacle:
        return Plan(refusal=found.obstacle, note=note)
    return Plan(steps=(Upgrade(wanted.revision),), note=note)


def _from_legacy(version: int, wanted: Wanted) -> Plan:
    state = f"it is at sqlalchemy-migrate version {version}"
    if unreadable := _unreadable(wanted):
        return Plan(refusal=f"{state}, but {unreadable}")
    newest = max(wanted.scripts, default=0)
    if version > newest:
        return Plan(refusal=f"{state}, beyond the newest of {wanted.repository}, {newest}: a later release's")
    usable = [entry for entry in wanted.mapped if entry.version >= version]
    if not usable:
        mapped = ", ".join(str(entry.version) for entry in wanted.mapped) or "none"
        return Plan(
            refusal=f"{state}, and legacy_versions maps none at or above it (mapped: {mapped}); add the one"
            " whose schema an alembic revision equals"
        )
    baseline = min(usable, key=lambda entry: entry.version)
    state += f", which legacy_versions takes to {baseline.version}:{baseline.revision}"
    missing = sorted(set(range(version + 1, baseline.version + 1)) - wanted.scripts)
    if missing:
        return Plan(refusal=f"{state}, but {wanted.repository} has no version {missing[0]}")
    if baseline.obstacle:
        return Plan(refusal=f"{state}, but {baseline.obstacle}")
    catch_up = (CatchUp(baseline.version),) if baseline.version > version else ()
    return Plan(steps=(*catch_up, Stamp(baseline.revision), Upgrade(wanted.revision)))


def _unreadable(wanted: Wanted) -> str:
    if not wanted.repository:
        return "migrate_repository and legacy_versions are not set"
    return wanted.defect
