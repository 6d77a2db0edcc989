"""From the command line to a device and back: seal, enrol, release, answer, look, take back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from everloop.app.client import connect
from everloop.gate.verbs import WaiveGate
from everloop.registry.client import register
from everloop.registry.evidence import Waiver
from everloop.registry.signature import infer_signature
from tests.story.fleet import Machine
from tests.story.project import make_project
from tests.unit.edge import sealed


@pytest.mark.slow
def test_a_device_is_made_and_led_by_commands_alone(tmp_path: Path) -> None:
    project = make_project(tmp_path / "office")
    with connect(project.folder) as client:
        for rounds in (2, 3):
            signature = infer_signature(sealed.TABLE, sealed.NAMES, "loss", "regression")
            model = sealed.lightgbm_model(rounds=rounds)
            made = register(client, "credit", model, signature=signature)
            waiver = WaiveGate(version=made.id, why="a test of devices")
            client.perform("gate.waive", waiver, Waiver)
    with project.up():
        device = tmp_path / "van"
        device.mkdir()
        project.run("export", "edge", "credit@1", "-o", str(device / "credit.pyz"))
        project.run("fleet", "create", "vans", "credit", "--by", "evidence", "--min-answers", "0")
        enrolled = project.json(
            "fleet", "enrol", "vans", "van-1", "--group", "canary",
            "--server", project.address(), "-o", str(device / "device.json"),
        )  # fmt: skip
        project.run("fleet", "release", "vans", "credit@2")
        machine = Machine(device, device / "credit.pyz")

        synced = machine.sync()
        answer = machine.predict(dict(sealed.ROW))[0]
        machine.sync()

        told = json.loads((device / "device.json").read_text())
        shown = project.json("fleet", "show", "vans")
        back = project.run("fleet", "rollback", "vans", "--yes", "--reason", "a drill").stdout

    assert synced["updated"]
    expected = sealed.lightgbm_model(rounds=3).predict([[5.0, 3200.0, 41.0, 0.25]])[0]
    assert expected == answer["output"]
    assert told["token"] not in json.dumps(enrolled)
    assert 0o600 == (device / "device.json").stat().st_mode & 0o777
    assert [1, 0] == [group["adopted"] for group in shown["groups"]]
    assert [1] == [version["answers"] for version in shown["versions"]]
    assert "epoch" in back
