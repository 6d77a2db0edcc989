"""What devices sent goes after the time that the model's settings give predictions."""

from __future__ import annotations

import pytest

from everloop.app.retention import DeviceRetention
from everloop.app.verbs import load_verbs
from everloop.core.digest import content_digest
from everloop.core.errors import InvalidInput
from everloop.fleet.model import DeviceBatch
from everloop.fleet.queries import FleetView
from everloop.fleet.verbs import CreateFleet
from everloop.registry.lifecycle import CreateModel
from everloop.registry.model import Model
from tests.unit.release.released import DOCUMENT, Released

load_verbs()


def receive(released: Released, fleet: FleetView, number: int) -> None:
    kernel = released.world.kernel
    rows = released.world.blobs.put(b'[["id", 1, "version", "ok", 1.0, 100, ["ann"]]]')
    with kernel.store.write() as tx:
        tx.insert(
            DeviceBatch(
                id=kernel.services.ids.new(),
                project=fleet.fleet.project,
                fleet=fleet.fleet.id,
                device=kernel.services.ids.new(),
                series="a",
                number=number,
                digest=content_digest(b"batch"),
                rows=rows,
                answers=1,
                errors=0,
                invalid=0,
                dropped=0,
                torn=0,
                received_at=released.now,
            )
        )


def kept(released: Released) -> dict[int, bool]:
    with released.world.kernel.store.read() as tx:
        return {batch.number: batch.rows is not None for batch in tx.select(DeviceBatch)}


def test_rows_of_devices_are_erased_after_the_days_that_predictions_are_kept() -> None:
    released = Released()
    demand: dict[str, object] = DOCUMENT["models"]["demand"]  # type: ignore[index]
    ask = CreateFleet(name="vans", model="demand")
    fleet = released.owner.perform("fleet.create", ask, FleetView)
    receive(released, fleet, 1)
    released.world.clock.push(days=31)
    receive(released, fleet, 2)
    retention = DeviceRetention(released.world.loop, released.world.clock)

    without_a_limit = retention.step()
    released.world.configure({"models": {"demand": {**demand, "log": {"keep_days": 30}}}})
    within_the_hour = retention.step()
    released.world.clock.push(hours=1)
    due = retention.step()

    assert (0, 0, 1) == (without_a_limit, within_the_hour, due)
    assert {1: False, 2: True} == kept(released)


def test_settings_of_one_fleet_that_cannot_be_read_keep_no_other_from_its_end() -> None:
    released = Released()
    demand: dict[str, object] = DOCUMENT["models"]["demand"]  # type: ignore[index]
    released.owner.perform("model.create", CreateModel(name="other"), Model)
    released.owner.perform("fleet.create", CreateFleet(name="a", model="other"), FleetView)
    vans = CreateFleet(name="vans", model="demand")
    receive(released, released.owner.perform("fleet.create", vans, FleetView), 1)
    released.world.configure(
        {"models": {"other": {"log": 3}, "demand": {**demand, "log": {"keep_days": 30}}}}
    )
    released.world.clock.push(days=31)

    with pytest.raises(InvalidInput, match="settings"):
        DeviceRetention(released.world.loop, released.world.clock).step()

    assert {1: False} == kept(released)
