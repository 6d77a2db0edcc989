"""What is in the trash, what purging it would break, and what is gone afterwards."""

from __future__ import annotations

from typing import Any

import pytest

from everloop.core.digest import content_digest
from everloop.core.errors import Denied, InvalidInput, NotFound
from everloop.core.ids import Id
from everloop.core.ports import where
from everloop.core.records import declared_kinds
from everloop.govern.collecting import CollectBlobs, Collected
from everloop.govern.lineage import ShowLineage
from everloop.govern.model import Lineage
from everloop.govern.trash import (
    ListTrash,
    PlanPurge,
    Purged,
    PurgePlan,
    PurgeTrash,
    TrashList,
)
from everloop.kernel.authz import Role
from everloop.kernel.ledger.log import LedgerRef
from everloop.kernel.lineage import Edge
from everloop.storage.memory_blobs import MemoryBlobStore
from everloop.track import columns
from everloop.track.experiments import ExperimentNamed, ExperimentShown
from everloop.track.lifecycle import RunNamed, RunShown
from everloop.track.model import Run
from everloop.track.verbs import (
    ArtifactFile,
    LogRun,
    MetricSeries,
    RunLogged,
    RunStarted,
    StartRun,
)
from tests.kit import World, world


@pytest.fixture
def place() -> World:
    made = world()
    blobs = made.whole
    assert isinstance(blobs, MemoryBlobStore)
    blobs._clock = made.clock
    return made


def a_run(place: World, data: bytes = b"artifact", **given: Any) -> Id:
    key = place.kernel.services.ids.new()
    place.owner.perform("run.start", StartRun(run=key, params={"a": "1"}, **given), RunStarted)
    file = ArtifactFile(path="a.txt", digest=place.blobs.put(data), size_bytes=len(data))
    points = columns.encode(columns.to_columns([0, 1], [0, 1], [0.5, 0.25]))
    log = LogRun(run=key, artifacts=(file,), metrics=(MetricSeries(key="m", data=points),))
    place.owner.perform("run.log", log, RunLogged)
    return key


def deleted(place: World, run: Id) -> Id:
    place.owner.perform("run.delete", RunNamed(run=run), RunShown)
    return run


def plan(place: World, **ask: Any) -> PurgePlan:
    return place.owner.perform("trash.plan", PlanPurge(**ask), PurgePlan)


def purge(place: World, reason: str | None = None, **ask: Any) -> Purged:
    return place.owner.perform("trash.purge", PurgeTrash(**ask), Purged, reason=reason)


def rows_about(place: World, run: Id) -> list[str]:
    """Names of the kinds that still have a row of the run, but the ledger's own."""
    left = []
    with place.kernel.store.read() as tx:
        for kind in declared_kinds().values():
            fields = set(kind.type.__struct_fields__)
            if kind.name == "run" and tx.find(Run, run):
                left.append("run")
            if "run" in fields and tx.count(kind.type, *where(run=run)):
                left.append(kind.name)
        if tx.count(Edge, *where(source=f"run:{run}")):
            left.append("edge")
    return left


def test_a_deleted_run_is_in_the_trash_until_it_is_restored(place: World) -> None:
    run = deleted(place, a_run(place))

    (item,) = place.owner.perform("trash.list", ListTrash(), TrashList).items

    assert f"run:{run}" == item.ref
    assert 30 == (item.purgeable_at - item.deleted_at).days
    place.owner.perform("run.restore", RunNamed(run=run), RunShown)
    assert () == place.owner.perform("trash.list", ListTrash(), TrashList).items


def test_nothing_is_purged_within_the_grace_period(place: World) -> None:
    run = deleted(place, a_run(place))
    place.clock.push(days=29)

    done = purge(place)

    assert () == done.things
    assert ["grace"] == [hold.by for hold in done.refused[0].holds]
    assert "run" in rows_about(place, run)


def test_after_the_grace_period_everything_of_a_run_goes(place: World) -> None:
    run, other = deleted(place, a_run(place)), a_run(place, b"other")
    before = rows_about(place, other)
    place.clock.push(days=30)

    done = purge(place)

    assert (f"run:{run}",) == done.things
    assert [] == rows_about(place, run)
    assert before == rows_about(place, other)
    assert {"run", "artifact_entry", "metric_batch", "metric_summary", "edge"} <= set(before)


def test_the_ledger_still_tells_of_a_purged_run(place: World) -> None:
    run = deleted(place, a_run(place))
    place.clock.push(days=30)

    purge(place)

    with place.kernel.store.read() as tx:
        assert 4 == len({row.entry for row in tx.select(LedgerRef, *where(ref=f"run:{run}"))})


def test_a_purged_run_is_said_to_be_purged_and_not_to_be_tampered_with(place: World) -> None:
    parent = a_run(place)
    run = deleted(place, a_run(place))
    with place.kernel.store.write() as tx:
        tx.insert(
            Edge(
                id=place.kernel.services.ids.new(),
                project=tx.select(Run)[0].project,
                source=f"run:{parent}",
                relation="followed",
                target=f"run:{run}",
                at=place.clock.now(),
            )
        )
    place.clock.push(days=30)
    assert [f"run:{parent} (followed)"] == list(plan(place).items[0].mentions)

    purge(place)

    shown = place.owner.perform("lineage.show", ShowLineage(ref=f"run:{parent}"), Lineage)
    (node,) = [node for node in shown.nodes if node.ref == f"run:{run}"]
    assert node.verified is None
    assert "purged" in str(node.problem)


def test_the_grace_period_may_be_cut_short_with_a_reason(place: World) -> None:
    run = deleted(place, a_run(place))

    with pytest.raises(InvalidInput) as refused:
        purge(place, ignore_grace=True)
    assert "trash.reason_missing" == refused.value.code
    done = purge(place, "the customer asked", ignore_grace=True)

    assert (f"run:{run}",) == done.things


def test_the_grace_period_is_a_setting(place: World) -> None:
    deleted(place, a_run(place))
    place.configure({"version": 1, "project": "demo", "trash": {"grace_days": 2}})
    place.clock.push(days=2)

    assert 1 == len(purge(place).things)


def test_runs_are_kept_as_long_as_the_project_says(place: World) -> None:
    deleted(place, a_run(place))
    place.configure({"version": 1, "project": "demo", "trash": {"keep_runs_days": 365}})
    place.clock.push(days=364)

    (refused,) = purge(place).refused

    assert ["retention"] == [hold.by for hold in refused.holds]


def test_only_who_administers_the_project_may_purge(place: World) -> None:
    deleted(place, a_run(place))
    ann = place.person("ann", Role.CONTRIBUTOR)

    with pytest.raises(Denied):
        ann.perform("trash.purge", PurgeTrash(), Purged)


def test_a_child_that_stays_keeps_its_parent(place: World) -> None:
    parent = deleted(place, a_run(place))
    child = a_run(place)
    with place.kernel.store.write() as tx:
        row = tx.find(Run, child)
        assert row is not None
        tx.replace(type(row)(**{**_fields(row), "parent": parent}))
    place.clock.push(days=30)

    (refused,) = purge(place).refused
    assert [f"run:{child}"] == [hold.ref for hold in refused.holds]

    deleted(place, child)
    place.clock.push(days=30)
    assert (f"run:{child}", f"run:{parent}") == purge(place).things


def _fields(row: Any) -> dict[str, Any]:
    return {name: getattr(row, name) for name in row.__struct_fields__}


def test_an_experiment_goes_with_its_runs(place: World) -> None:
    run = a_run(place, experiment="old")
    with place.kernel.store.read() as tx:
        row = tx.find(Run, run)
    assert row is not None
    place.owner.perform(
        "experiment.delete", ExperimentNamed(experiment=row.experiment), ExperimentShown
    )
    place.clock.push(days=30)

    done = purge(place, refs=(f"experiment:{row.experiment}",))

    assert (f"run:{run}", f"experiment:{row.experiment}") == done.things


def test_the_plan_is_what_the_purge_does(place: World) -> None:
    deleted(place, a_run(place, b"its own bytes"))
    deleted(place, a_run(place, b"shared"))
    a_run(place, b"shared")
    place.clock.push(days=30)

    told = plan(place)
    done = purge(place)

    assert (2, 0) == (told.purged, told.refused)
    assert told.rows == done.rows
    assert (1, len(b"its own bytes")) == (told.blobs, told.freed_bytes)
    freed = 0
    while True:
        step = place.instance(CollectBlobs(), "blob.collect")
        assert isinstance(step, Collected)
        freed += step.size_bytes if step.step == "delete" else 0
        if step.is_done:
            break
    assert told.freed_bytes == freed
    assert [content_digest(b"shared")] == list(place.blobs.digests())


def test_what_was_deleted_lately_is_left_out_when_asked_so(place: World) -> None:
    old = deleted(place, a_run(place))
    place.clock.push(days=40)
    deleted(place, a_run(place, b"new"))

    told = plan(place, older_than_days=30)

    assert [f"run:{old}"] == [item.ref for item in told.items]


def test_purging_what_is_not_in_the_trash_is_refused(place: World) -> None:
    run = a_run(place)

    with pytest.raises(NotFound) as refused:
        purge(place, refs=(f"run:{run}",))

    assert "trash.not_found" == refused.value.code


def test_a_large_purge_goes_in_several_calls(place: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("everloop.govern.trash.ROWS_A_CALL", 1)
    for _ in range(3):
        deleted(place, a_run(place))
    place.clock.push(days=30)

    calls = [purge(place) for _ in range(3)]

    assert [True, True, False] == [call.more for call in calls]
    assert () == place.owner.perform("trash.list", ListTrash(), TrashList).items
