"""Model versions in the trash: what holds them there, and what stays when they are purged."""

from __future__ import annotations

from datetime import datetime

import msgspec
import pytest

from everloop.core.ports import where
from everloop.govern.trash import PlanPurge, Purged, PurgePlan, PurgeTrash
from everloop.registry.evidence import Waiver
from everloop.registry.lifecycle import NameModel, NameVersion
from everloop.registry.model import Model, ModelVersion, VersionNotes
from tests.unit.release.released import Released


@pytest.fixture
def place() -> Released:
    return Released()


def delete(place: Released, version: ModelVersion) -> None:
    place.owner.perform("version.delete", NameVersion(version=version.id), VersionNotes)


def mark_deleted(place: Released, version: ModelVersion, at: datetime) -> None:
    """Put a version into the trash past the verb, which refuses what is in use."""
    with place.world.kernel.store.write() as tx:
        (notes,) = tx.select(VersionNotes, *where(version=version.id))
        tx.replace(msgspec.structs.replace(notes, deleted_at=at))


def purge(place: Released) -> Purged:
    return place.owner.perform("trash.purge", PurgeTrash(), Purged)


def test_a_version_that_answers_is_never_purged(place: Released) -> None:
    first, second = place.version(1), place.version(2)
    place.champion(first)
    place.champion(second)
    for version in (first, second):
        mark_deleted(place, version, place.now)
    place.world.clock.push(days=1000)

    done = purge(place)

    assert () == done.things
    held = {refused.ref: {hold.by for hold in refused.holds} for refused in done.refused}
    assert {f"model_version:{v.id}": {"in_use"} for v in (first, second)} == held


def test_a_version_in_a_release_under_way_is_not_purged(place: Released) -> None:
    version = place.version(1)
    place.start(version, strategy="shadow")
    mark_deleted(place, version, place.now)
    place.world.clock.push(days=1000)

    (refused,) = purge(place).refused

    assert {"in_use"} == {hold.by for hold in refused.holds}


def test_evidence_keeps_a_version_for_a_while_and_goes_with_it(place: Released) -> None:
    version = place.version(1)
    delete(place, version)
    place.world.clock.push(days=100)

    (refused,) = purge(place).refused
    assert {"evidence"} == {hold.by for hold in refused.holds}
    assert all(hold.until is not None for hold in refused.holds)

    place.world.clock.push(days=81)
    assert (f"model_version:{version.id}",) == purge(place).things
    with place.world.kernel.store.read() as tx:
        assert 0 == tx.count(Waiver, *where(version=version.id))
        assert 0 == tx.count(VersionNotes, *where(version=version.id))


def test_the_number_of_a_purged_version_is_never_given_again(place: Released) -> None:
    version = place.version(1)
    delete(place, version)
    place.world.clock.push(days=1000)
    purge(place)

    again = place.version(3)

    assert again.number == version.number + 1


def test_a_purged_model_leaves_its_name_and_its_numbers(place: Released) -> None:
    version = place.version(1)
    place.owner.perform("model.delete", NameModel(name="demand"), Model)
    place.world.clock.push(days=1000)
    told = place.owner.perform("trash.plan", PlanPurge(), PurgePlan)

    done = purge(place)

    assert {f"model_version:{version.id}"} <= set(done.things)
    assert {item.ref for item in told.items if not item.holds} == set(done.things)
    with place.world.kernel.store.read() as tx:
        (model,) = tx.select(Model)
        assert 0 == tx.count(ModelVersion)
    assert ("demand", version.number, "") == (model.name, model.last_number, model.description)


def test_a_version_is_purged_by_the_names_that_people_give_it(place: Released) -> None:
    version = place.version(1)
    delete(place, version)
    place.world.clock.push(days=1000)

    ask = PlanPurge(refs=(f"model:{version.name}@{version.number}",))
    by_number = place.owner.perform("trash.plan", ask, PurgePlan)
    ask = PlanPurge(refs=(f"model:{version.name}@{version.version}",))
    by_version = place.owner.perform("trash.plan", ask, PurgePlan)

    assert {f"model_version:{version.id}"} == {item.ref for item in by_number.items}
    assert by_number == by_version
