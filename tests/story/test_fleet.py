"""A fleet pulls its versions group by group, and each device looks after itself."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator

import httpx
import pytest

from everloop.fleet.model import DeviceBatch
from everloop.fleet.queries import FleetDrift, ShowDrift
from tests.kit import world
from tests.story.fleet import Yard, control_plane, until
from tests.unit.edge import sealed


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    made = Yard(world(), tmp_path_factory.mktemp("yard"))
    made.seal(sealed.lightgbm_model(rounds=5))
    made.seal(sealed.lightgbm_model(rounds=8))
    made.seal(sealed.lightgbm_model(rounds=9), mask=("income",))
    made.seal(sealed.onnx_model())
    with control_plane(made):
        yield made


def test_a_version_goes_from_group_to_group_and_back_by_pull(yard: Yard) -> None:
    old, new = (bundle.bundle.digest for bundle in yard.bundles[:2])
    yard.create("vans")
    canary, other = yard.device("vans", "van-1", "canary"), yard.device("vans", "van-2")
    yard.release("vans", yard.bundles[0])
    yard.step("vans")
    yard.step("vans")  # the last group is done: this is the fleet's target now
    assert [old, old] == [canary.sync()["running"], other.sync()["running"]]

    yard.release("vans", yard.bundles[1])
    assert [new, old] == [canary.sync()["running"], other.sync()["running"]]
    seen = yard.show("vans")
    assert [("canary", 1, 1), ("rest", 1, 1)] == [
        (group.name, group.devices, group.adopted) for group in seen.groups
    ]
    yard.step("vans")
    assert [new, new] == [canary.sync()["running"], other.sync()["running"]]

    yard.go_back("vans")
    assert [old, old] == [canary.sync()["running"], other.sync()["running"]]
    assert [yard.bundles[0].version] * 2 == [d.version for d in yard.show("vans").devices]


def test_answers_given_offline_arrive_once_and_masked_inputs_never(yard: Yard) -> None:
    yard.create("kiosks")
    machine = yard.device("kiosks", "kiosk-1", first=2)
    rows = [{**sealed.ROW, "age": age} for age in range(20, 40)]
    ids = [answer["id"] for _ in range(2) for answer in machine.predict(*rows)]

    assert [1, 0] == [machine.sync()["batches_sent"], machine.sync()["batches_sent"]]

    (told,) = yard.show("kiosks").versions
    assert (40, 0, 0) == (told.answers, told.errors, told.invalid)
    assert 40 == (told.output.n if told.output else 0)
    drift = yard.world.owner.perform(
        "fleet.drift", ShowDrift(fleet="kiosks", version=told.version), FleetDrift
    )
    assert {"age", "city", "debt"} == set(drift.profile.columns)
    assert drift.report is not None
    assert {"age", "debt"} == set(drift.report.drifted)
    with yard.world.kernel.store.read() as tx:
        (batch,) = (row for row in tx.select(DeviceBatch) if row.answers == 40)
    assert batch.rows is not None
    sent = json.loads(yard.world.blobs.get(batch.rows))
    assert ids == [row[0] for row in sent]
    assert {("city 05", None, 0.25)} == {(row[6][0], row[6][1], row[6][3]) for row in sent}
    assert b"3200" not in (machine.state / "log").joinpath("folded.json").read_bytes()


def test_a_bundle_that_a_device_cannot_run_is_left_and_told(yard: Yard) -> None:
    yard.create("old")
    machine = yard.device("old", "till", "canary")
    before = machine.sync()["running"]
    yard.release("old", yard.bundles[3])  # needs onnxruntime, and this Python has no package

    first, second = machine.run("sync"), machine.run("sync")

    assert (1, True) == (first.returncode, "edge.runtime_missing" in first.stderr)
    assert 0 == second.returncode  # it is not tried again
    seen = yard.show("old")
    assert [(1, 0, 1), (0, 0, 0)] == [(g.devices, g.adopted, g.refused) for g in seen.groups]
    assert before == machine.told()["current"]
    assert ["edge.runtime_missing"] == [each.reason for each in seen.devices[0].device.refused]
    assert seen.release is not None
    assert "Waiting: 1 of 1 devices tried it and left it, so a person decides." == seen.release.why
    assert 1.0 == seen.release.evidence_bad


def test_a_revoked_device_gets_nothing_and_goes_on_answering(yard: Yard) -> None:
    from everloop.fleet.devices import RevokeDevice
    from everloop.fleet.model import Device

    yard.create("lost")
    machine = yard.device("lost", "tablet")
    machine.sync()
    ask = RevokeDevice(fleet="lost", name="tablet")
    yard.world.owner.perform("device.revoke", ask, Device)

    done = machine.run("sync")

    assert 1 == done.returncode
    assert "edge.turned_away" in done.stderr
    assert 1 == len(machine.predict(dict(sealed.ROW)))


def test_a_disk_that_takes_no_new_bundle_stops_no_answer(yard: Yard) -> None:
    yard.create("full")
    machine = yard.device("full", "full-1", "canary")
    machine.sync()
    new = yard.bundles[1].bundle.digest.partition(":")[2]
    (machine.state / "bundles" / f"{new}.part").mkdir()
    with machine.running():
        until(lambda: machine.health()["status"] == "ok", "it serves")
        yard.release("full", yard.bundles[1])
        until(lambda: (machine.state / "said").read_text().count("not updated") > 1, "it says so")

        assert 1 == machine.health()["status"].count("ok")


def test_a_running_device_follows_confirms_and_serves_the_new_version(yard: Yard) -> None:
    yard.create("gates")
    machine = yard.device("gates", "gate-1", "canary")
    with machine.running():
        until(lambda: machine.health()["status"] == "ok", "it serves")
        yard.release("gates", yard.bundles[1])
        until(
            lambda: machine.health()["version"] == yard.bundles[1].version, "it serves the new one"
        )
        until(lambda: not machine.told()["trying"], "it is confirmed")
        until(lambda: yard.show("gates").groups[0].adopted == 1, "it has told")
        address = (machine.state / "address").read_text()
        answer = httpx.post(f"{address}/predict", json=sealed.ROW).json()["predictions"][0]

    expected = sealed.lightgbm_model(rounds=8).predict([[5.0, 3200.0, 41.0, 0.25]])[0]
    assert (expected, yard.bundles[1].version) == (answer["output"], answer["version"])


@pytest.mark.parametrize("moment", ["at once", "after the download", "while it is tried"])
def test_killed_in_the_middle_of_an_update_a_device_comes_back_whole(
    yard: Yard, moment: str
) -> None:
    name = f"kill-{moment.replace(' ', '-')}"
    yard.create(name)
    machine = yard.device(name, "pump", "canary")
    machine.sync()
    yard.release(name, yard.bundles[1])
    seen = {
        "at once": lambda: True,
        "after the download": lambda: len(list((machine.state / "bundles").iterdir())) > 1,
        "while it is tried": lambda: machine.told()["trying"],
    }[moment]
    with machine.running("--trial", "1.0") as process:
        until(seen, moment)
        process.send_signal(signal.SIGKILL)
        process.wait()

    assert 0 == machine.predict(dict(sealed.ROW))[0]["output"] * 0  # whichever it is, it is whole
    with machine.running():
        until(
            lambda: machine.health()["version"] == yard.bundles[1].version, "it serves the new one"
        )
        until(lambda: not machine.told()["trying"], "it is confirmed")

    assert yard.bundles[1].bundle.digest == machine.told()["current"]
    assert [] == machine.told()["refused"]
