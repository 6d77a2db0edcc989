"""Putting a configuration in force: what would protect nothing is refused."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from everloop.app.client import connect_home
from everloop.app.home import Home
from everloop.app.starting import put_in_force, start_project
from everloop.core.errors import InvalidInput
from everloop.registry.client import upload_files
from everloop.registry.model import ModelVersion
from everloop.registry.verbs import RegisterModel
from tests.unit.release.released import SIGNATURE
from tests.unit.serve.served import shifted_model


def test_a_masked_name_that_is_no_input_is_refused_and_told_when_nobody_can_know(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    start_project(tmp_path, "demo")
    home = Home(tmp_path / ".everloop")
    with (tmp_path / "everloop.yaml").open("a") as file:
        file.write("models: {demand: {log: {masked: [hour, temprature]}}}\n")
    with connect_home(home, project="demo") as client:
        with caplog.at_level(logging.WARNING):
            before = put_in_force(client, home)
        files = upload_files(client.blobs, {"model.txt": shifted_model(0)})
        ask = RegisterModel(name="demand", files=files, format="lightgbm", signature=SIGNATURE)
        client.perform("model.register", ask, ModelVersion)

        with pytest.raises(InvalidInput, match="'temprature' is no input") as refusal:
            put_in_force(client, home)

    assert 2 == before.number
    assert "models.demand.log.masked is not checked yet" in caplog.text
    assert "Did you mean 'temperature'?" in refusal.value.hint
