"""The decisions, from every state to every wish."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from refresh_agent.db.worker.protocol import DOWN, NO_VERSION, STAMP, UP, LegacyStep
from refresh_agent.db.worker.transition import (
    BASE,
    Downgrade,
    Found,
    Legacy,
    Mapped,
    Plan,
    Stamp,
    Step,
    Upgrade,
    Wanted,
    decide_downgrade,
    decide_stamp,
    decide_upgrade,
)

versions = st.integers(0, 12)
revisions = st.text("abcdef", min_size=4, max_size=8)
obstacles = st.sampled_from(["", "", "it cannot"])

founds = st.builds(
    Found,
    tables=st.booleans(),
    heads=st.lists(revisions, max_size=2).map(tuple),
    legacy=st.none() | versions,
    strangers=st.lists(st.sampled_from(["nova", "heat"]), max_size=1).map(tuple),
)
mappings = st.lists(
    st.builds(Mapped, versions, revisions | st.just(BASE), obstacles, obstacles),
    max_size=4,
    unique_by=lambda entry: entry.version,
).map(tuple)
wanteds = st.builds(
    Wanted,
    revision=st.sampled_from(["head", "abcd", BASE]) | versions.map(str),
    legacy=st.builds(
        Legacy,
        path=st.sampled_from(["", "/repo"]),
        scripts=st.frozensets(st.integers(1, 12)) | st.just(frozenset(range(1, 13))),
        defect=obstacles,
    ),
    mapped=mappings,
    behind=st.booleans(),
    obstacle=obstacles,
)
REPOSITORY = Legacy("/repo", frozenset({1, 2, 3}))


def kinds(plan: Plan) -> list[type[Step]]:
    return [type(step) for step in plan.steps]


# --- up --------------------------------------------------------------------------------------------------


@given(founds, wanteds)
def test_a_plan_is_steps_or_a_refusal_or_nothing(found: Found, wanted: Wanted) -> None:
    plan = decide_upgrade(found, wanted)
    assert not (plan.steps and plan.refusal)
    assert kinds(plan) in (
        [],
        [Upgrade],
        [LegacyStep],
        [Stamp, Upgrade],
        [LegacyStep, Upgrade],
        [LegacyStep, Stamp, Upgrade],
    )
    for step in plan.steps:
        assert not isinstance(step, LegacyStep) or step.direction == UP
        assert not isinstance(step, Upgrade) or step.revision == wanted.revision


@given(founds, wanteds)
def test_nothing_is_stamped_that_was_not_verified(found: Found, wanted: Wanted) -> None:
    """A stamp is a mapping's, and the database is at that very version when it is set."""
    plan = decide_upgrade(found, wanted)
    stamps = [step for step in plan.steps if isinstance(step, Stamp)]
    if not stamps:
        return
    assert not found.heads
    assert found.legacy is not None
    reached = next((step.version for step in plan.steps if isinstance(step, LegacyStep)), found.legacy)
    assert (reached, stamps[0].revision) in [(entry.version, entry.revision) for entry in wanted.mapped]


@given(founds, wanteds)
def test_the_repository_goes_up_only_where_every_script_is_there(found: Found, wanted: Wanted) -> None:
    for step in decide_upgrade(found, wanted).steps:
        if isinstance(step, LegacyStep):
            start = found.legacy if found.legacy is not None else step.control
            assert start <= step.version
            assert set(range(start + 1, step.version + 1)) <= wanted.legacy.scripts
            assert not wanted.legacy.defect


@given(founds, wanteds)
def test_the_lowest_mapped_version_is_gone_to(found: Found, wanted: Wanted) -> None:
    plan = decide_upgrade(found, wanted)
    if found.legacy is None or kinds(plan)[:1] != [LegacyStep] or wanted.version is not None:
        return
    assert isinstance(plan.steps[0], LegacyStep)
    above = [entry.version for entry in wanted.mapped if entry.version >= found.legacy]
    assert plan.steps[0].version == min(above) > found.legacy


@given(founds, wanteds)
def test_a_database_with_a_head_is_alembics_alone(found: Found, wanted: Wanted) -> None:
    plan = decide_upgrade(found, wanted)
    if found.heads:
        assert plan.steps in ((), (Upgrade(wanted.revision),))
        assert bool(plan.note) == (found.legacy is not None and bool(plan.steps or plan.refusal))


@given(founds, wanteds)
def test_unversioned_tables_are_never_touched(found: Found, wanted: Wanted) -> None:
    if found.version == "none":
        assert decide_upgrade(found, wanted).refusal
        assert decide_downgrade(found, wanted).refusal


@given(founds, wanteds)
def test_going_on_after_each_step_leads_to_the_same_end(found: Found, wanted: Wanted) -> None:
    """A worker that died between two steps is followed by one that decides anew."""
    plan = decide_upgrade(found, wanted)
    if len(plan.steps) > 1 and isinstance(plan.steps[0], LegacyStep):
        reached = plan.steps[0].version
        lowest = [entry for entry in wanted.mapped if entry.version >= reached]
        if found.legacy is None and min(lowest, key=lambda entry: entry.version).version != reached:
            return
        assert decide_upgrade(Found(tables=True, legacy=reached), wanted) == Plan(steps=plan.steps[1:])


@given(st.integers(1, 3), st.integers(0, 3))
def test_a_version_of_the_repository_can_be_the_goal_and_an_upgrade_never_goes_down(
    goal: int, at: int
) -> None:
    """oslo.db's migrate plugin has no revisions on Python 3; and its upgrade to a lower one went down."""
    wanted = Wanted(str(goal), REPOSITORY, (Mapped(3, "abcd"),))
    assert decide_upgrade(Found(), wanted).steps == (LegacyStep(UP, goal, control=0),)
    steps = (LegacyStep(UP, goal),) if goal > at else ()
    assert decide_upgrade(Found(tables=True, legacy=at), wanted) == Plan(steps=steps)
    assert decide_upgrade(Found(tables=True, legacy=3, heads=("abcd",)), wanted) == Plan()


def test_empty() -> None:
    assert decide_upgrade(Found(), Wanted()) == Plan(steps=(Upgrade("head"),))
    assert decide_upgrade(Found(), Wanted(behind=False)) == Plan()


def test_a_tree_that_goes_on_where_the_repository_ends() -> None:
    """migration_cli's kind of tree: alembic's first revision needs what the repository has made."""
    wanted = Wanted("head", Legacy("/repo", frozenset({73, 74})), (Mapped(74, BASE),))
    up = LegacyStep(UP, 74, control=72)
    assert decide_upgrade(Found(), wanted).steps == (up, Upgrade("head"))
    assert decide_upgrade(Found(legacy=73), wanted).steps == (LegacyStep(UP, 74), Upgrade("head"))
    assert decide_upgrade(Found(legacy=74), wanted).steps == (Upgrade("head"),)


def test_legacy_version_zero_is_a_version() -> None:
    """oslo.db took version 0 for none (LP 1413277); migrate writes it when it has done nothing yet."""
    wanted = Wanted(legacy=REPOSITORY, mapped=(Mapped(2, "abcd"),))
    plan = decide_upgrade(Found(legacy=0), wanted)
    assert plan.steps == (LegacyStep(UP, 2), Stamp("abcd"), Upgrade("head"))
    assert Found(legacy=0).version == "migrate 0"


def test_refusals_say_what_to_do() -> None:
    refusal = decide_upgrade(Found(tables=True), Wanted(stamping="agent db stamp REVISION")).refusal
    assert refusal.endswith("say so once with: agent db stamp REVISION")
    assert "(mapped: none)" in decide_upgrade(Found(legacy=0), Wanted(legacy=REPOSITORY)).refusal
    gap = Legacy("/repo", frozenset({1, 3}))
    missing = decide_upgrade(Found(legacy=1), Wanted(legacy=gap, mapped=(Mapped(3, "abcd"),)))
    assert "has no version 2" in missing.refusal
    beyond = decide_upgrade(Found(legacy=4), Wanted(legacy=REPOSITORY, mapped=(Mapped(4, "abcd"),)))
    assert "beyond the newest of /repo, 3: a later release's" in beyond.refusal


# --- down ------------------------------------------------------------------------------------------------


@given(founds, wanteds)
def test_down_is_alembic_first_and_the_repository_last(found: Found, wanted: Wanted) -> None:
    plan = decide_downgrade(found, wanted)
    assert not (plan.steps and plan.refusal)
    assert kinds(plan) in (
        [],
        [Downgrade],
        [LegacyStep],
        [Downgrade, LegacyStep],
        [Downgrade, Stamp, LegacyStep],
    )
    for step in plan.steps:
        assert not isinstance(step, Stamp) or step.revision == BASE
        assert not isinstance(step, LegacyStep) or step.direction == DOWN
        assert not isinstance(step, LegacyStep) or step.version <= step.control


@given(founds, wanteds)
def test_alembics_word_is_taken_back_only_where_a_mapping_says_what_the_schema_then_is(
    found: Found, wanted: Wanted
) -> None:
    plan = decide_downgrade(found, wanted)
    if Stamp(BASE) in plan.steps:
        down, legacy = plan.steps[0], plan.steps[-1]
        assert isinstance(down, Downgrade)
        assert isinstance(legacy, LegacyStep)
        entry = next(entry for entry in wanted.mapped if entry.version == legacy.control)
        assert entry.revision == down.revision
        assert not entry.beyond_reach
        assert found.legacy in {None, entry.version}


def test_base_goes_through_both() -> None:
    """oslo.db's manager undid only alembic for "base"."""
    at_head = Found(tables=True, heads=("ffff",), legacy=3)
    wanted = Wanted(BASE, REPOSITORY, (Mapped(3, "abcd"),))
    down = LegacyStep(DOWN, 0, control=3)
    assert decide_downgrade(at_head, wanted).steps == (Downgrade("abcd"), Stamp(BASE), down)
    onto = replace(wanted, mapped=(Mapped(3, BASE),))
    assert decide_downgrade(at_head, onto).steps == (Downgrade(BASE), down)
    assert decide_downgrade(Found(tables=True, legacy=2), wanted).steps == (LegacyStep(DOWN, 0, control=2),)
    alembic_alone = Found(tables=True, heads=("ffff",))
    assert decide_downgrade(alembic_alone, wanted).steps == (Downgrade(BASE),)


def test_alembic_does_not_go_below_what_the_repository_has_made() -> None:
    wanted = Wanted("-3", REPOSITORY, (Mapped(3, "abcd", undone=True),))
    refusal = decide_downgrade(Found(tables=True, heads=("ffff",), legacy=3), wanted).refusal
    assert "-3 is below abcd, which legacy version 3 equals; name a version of the repository" in refusal
    alembic_alone = Found(tables=True, heads=("ffff",))
    assert decide_downgrade(alembic_alone, wanted).steps == (Downgrade("-3"),)


def test_base_when_the_two_version_tables_contradict_each_other() -> None:
    wanted = Wanted(BASE, REPOSITORY, (Mapped(3, "abcd"),), stamping="agent db stamp REVISION")
    refusal = decide_downgrade(Found(tables=True, heads=("ffff",), legacy=2), wanted).refusal
    assert "says 2, which legacy_versions does not map (mapped: 3)" in refusal
    assert refusal.endswith("say so with: agent db stamp REVISION")


def test_a_downgrade_never_goes_up() -> None:
    wanted = Wanted("3", REPOSITORY, (Mapped(3, "abcd"),))
    assert decide_downgrade(Found(tables=True, legacy=2), wanted) == Plan()
    assert decide_downgrade(Found(), wanted) == Plan()


def test_a_legacy_version_below_a_database_that_was_always_alembics() -> None:
    """The mapping says what its schema equals, so the repository can go on from there."""
    wanted = Wanted("1", REPOSITORY, (Mapped(3, "abcd"), Mapped(2, "aaaa", beyond_reach="it is not below")))
    plan = decide_downgrade(Found(tables=True, heads=("ffff",)), wanted)
    assert plan.steps == (Downgrade("abcd"), Stamp(BASE), LegacyStep(DOWN, 1, control=3))


def test_an_alembic_revision_is_not_below_a_legacy_version() -> None:
    plan = decide_downgrade(Found(tables=True, legacy=2), Wanted("abcd", REPOSITORY))
    assert "below every alembic revision" in plan.refusal


# --- stamp -----------------------------------------------------------------------------------------------


def test_stamping() -> None:
    wanted = Wanted("abcd", REPOSITORY)
    assert decide_stamp(Found(tables=True), wanted).steps == (Stamp("abcd"),)
    assert decide_stamp(Found(), replace(wanted, obstacle="no such revision")).refusal == "no such revision"


def test_migrate_can_be_stamped_and_then_counts() -> None:
    """oslo.db's manager could stamp alembic only."""
    wanted = Wanted("2", REPOSITORY)
    stamp = LegacyStep(STAMP, 2)
    assert decide_stamp(Found(tables=True), wanted).steps == (stamp,)
    assert decide_stamp(Found(heads=("abcd",), legacy=3), wanted).steps == (stamp, Stamp(BASE))
    assert decide_stamp(Found(heads=("abcd",), legacy=2), wanted).steps == (Stamp(BASE),)
    assert stamp.control == NO_VERSION


# --- names -----------------------------------------------------------------------------------------------


def test_an_identifier_of_the_tree_is_no_version() -> None:
    assert Wanted("2", REPOSITORY).version == 2
    assert Wanted("2", REPOSITORY, is_an_id=True).version is None


def test_version_for_people() -> None:
    assert Found().version == "empty"
    assert Found(tables=True).version == "none"
    assert Found(strangers=("nova",)).version == "none"
    assert Found(tables=True, legacy=0).version == "migrate 0"
    assert Found(tables=True, legacy=2, heads=("b", "a")).version == "alembic a+b"


def test_digits_are_a_version_of_the_repository_only_if_it_has_it() -> None:
    """oslo.db took an all-digit alembic id for a migrate version, and went down to base."""
    heat = Legacy("/repo", frozenset(range(73, 87)))
    assert [heat.knows(text) for text in ("72", "80", "71", "20240101", "head")] == [72, 80, None, None, None]
    assert Legacy().knows("1") is None
