"""The decision, from every state to every wish."""

from hypothesis import given
from hypothesis import strategies as st

from refresh_agent.db.worker.transition import CatchUp, Found, Mapped, Plan, Stamp, Upgrade, Wanted, decide

versions = st.integers(0, 12)
revisions = st.text("0123456789abcdef", min_size=4, max_size=8)
obstacles = st.sampled_from(["", "", "it cannot"])

founds = st.builds(
    Found,
    tables=st.booleans(),
    heads=st.lists(revisions, max_size=2).map(tuple),
    legacy=st.none() | versions,
    strangers=st.lists(st.sampled_from(["nova", "heat"]), max_size=1).map(tuple),
    behind=st.booleans(),
    obstacle=obstacles,
)
wanteds = st.builds(
    Wanted,
    revision=st.just("head"),
    repository=st.sampled_from(["", "/repo"]),
    mapped=st.lists(
        st.builds(Mapped, versions, revisions, obstacles), max_size=4, unique_by=lambda entry: entry.version
    ).map(tuple),
    scripts=st.frozensets(st.integers(1, 12)),
    defect=obstacles,
)


@given(founds, wanteds)
def test_a_plan_is_steps_or_a_refusal_or_nothing(found: Found, wanted: Wanted) -> None:
    plan = decide(found, wanted)
    assert not (plan.steps and plan.refusal)
    order = [type(step) for step in plan.steps]
    assert order in ([], [Upgrade], [Stamp, Upgrade], [CatchUp, Stamp, Upgrade])
    if order:
        assert plan.steps[-1] == Upgrade(wanted.revision)


@given(founds, wanteds)
def test_nothing_is_stamped_that_was_not_verified(found: Found, wanted: Wanted) -> None:
    """A stamp is a mapping's, and the database is at that very version when it is set."""
    plan = decide(found, wanted)
    stamps = [step for step in plan.steps if isinstance(step, Stamp)]
    if not stamps:
        return
    assert not found.heads
    assert found.legacy is not None
    reached = next((step.version for step in plan.steps if isinstance(step, CatchUp)), found.legacy)
    assert Mapped(reached, stamps[0].revision) in wanted.mapped


@given(founds, wanteds)
def test_catching_up_goes_to_the_lowest_mapped_version_and_every_script_is_there(
    found: Found, wanted: Wanted
) -> None:
    for step in decide(found, wanted).steps:
        if isinstance(step, CatchUp):
            assert found.legacy is not None
            assert step.version > found.legacy
            assert step.version == min(m.version for m in wanted.mapped if m.version >= found.legacy)
            assert set(range(found.legacy + 1, step.version + 1)) <= wanted.scripts


@given(founds, wanteds)
def test_a_database_with_a_head_is_alembics_alone(found: Found, wanted: Wanted) -> None:
    plan = decide(found, wanted)
    if found.heads:
        assert plan.steps in ((), (Upgrade("head"),))
        assert bool(plan.refusal) == bool(found.obstacle)
        assert bool(plan.note) == (found.legacy is not None and bool(plan.steps or plan.refusal))


@given(founds, wanteds)
def test_unversioned_tables_are_never_touched(found: Found, wanted: Wanted) -> None:
    if found.version == "none":
        assert decide(found, wanted).refusal


@given(founds, wanteds)
def test_going_on_after_each_step_leads_to_the_same_end(found: Found, wanted: Wanted) -> None:
    """A worker that died between two steps is followed by one that decides anew."""
    plan = decide(found, wanted)
    if len(plan.steps) > 1 and isinstance(plan.steps[0], CatchUp):
        later = Found(tables=True, legacy=plan.steps[0].version)
        assert decide(later, wanted) == Plan(steps=plan.steps[1:])


def test_empty() -> None:
    assert decide(Found(), Wanted()) == Plan(steps=(Upgrade("head"),))
    assert decide(Found(behind=False), Wanted()) == Plan()


def test_legacy_version_zero_is_a_version() -> None:
    """sqlalchemy-migrate writes 0 for a database that it controls and has done nothing to."""
    wanted = Wanted(repository="/repo", mapped=(Mapped(2, "abcd"),), scripts=frozenset({1, 2}))
    plan = decide(Found(legacy=0), wanted)
    assert plan.steps == (CatchUp(2), Stamp("abcd"), Upgrade("head"))


def test_refusals_say_what_to_do() -> None:
    refusal = decide(Found(tables=True), Wanted(stamping="PY -m alembic stamp REVISION")).refusal
    assert refusal.endswith("say so once with: PY -m alembic stamp REVISION")
    assert "(mapped: none)" in decide(Found(legacy=0), Wanted(repository="/repo")).refusal
    assert "has no version 2" in (
        decide(
            Found(legacy=1),
            Wanted(repository="/repo", mapped=(Mapped(3, "abcd"),), scripts=frozenset({1, 3})),
        ).refusal
    )


def test_version_for_people() -> None:
    assert Found().version == "empty"
    assert Found(tables=True).version == "none"
    assert Found(strangers=("nova",)).version == "none"
    assert Found(tables=True, legacy=0).version == "migrate 0"
    assert Found(tables=True, legacy=2, heads=("b", "a")).version == "alembic a+b"
