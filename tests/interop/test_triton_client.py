from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from everloop.serve.runtime import open_model
from tests.interop.standing import Standing, seal, standing
from tests.parts.triton import run_scenario
from tests.unit.serve.served import MODEL

REAL = open_model("lightgbm", {"model.txt": MODEL}, 4).predict


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standing]:
    folder = tmp_path_factory.mktemp("models")
    for name in ("bikes", "plain"):
        seal(folder, name)
    with standing(folder, "--workers", "2", "--grpc-port", "0") as found:
        yield found


def expected(count: int, *, has_gaps: bool = True) -> list[list[float]]:
    """What the model itself says to the rows of the scenario."""
    place = np.arange(count)
    temperature = place * 0.7 - 3.0
    temperature[1::7] = np.nan if has_gaps else 0.0
    weather = np.where(place % 5 == 4, np.nan, place % 5)
    rows = np.column_stack([place % 24, temperature, place % 3 > 0, weather])
    return REAL(rows.astype(np.float64)).reshape(-1, 1).tolist()


def of_matrix(dtype: type[np.generic]) -> list[list[float]]:
    rows = (np.arange(12).reshape(3, 4) * 0.1 + [[0, 20, 0, 1]]).astype(dtype)
    rows[:, 0] = np.floor(rows[:, 0])
    rows[:, 2] = [0, 1, 1]
    return REAL(rows.astype(np.float64)).reshape(-1, 1).tolist()


@pytest.mark.parametrize("way", ["http", "grpc"])
def test_an_unmodified_client_of_triton_gets_the_answers_of_the_model(
    server: Standing, triton_client: Path, way: str
) -> None:
    address = server.http if way == "http" else server.grpc
    assert address is not None

    found: dict[str, Any] = run_scenario(triton_client, way, address, "")

    assert [True, True, True, True, False] == [
        found[name] for name in ("live", "ready", "model_ready", "version_ready", "nobody_ready")
    ]
    assert "everloop" == found["server"]["name"]
    assert ["hour", "temperature", "working_day", "weather"] == [
        each["name"] for each in found["model"]["inputs"]
    ]
    assert (expected(40), "forty") == (found["rows"], found["id"])
    assert (expected(2), expected(2)) == (found["named"], found["versioned"])
    assert [of_matrix(np.float64), of_matrix(np.float32), of_matrix(np.float16)] == [
        found[name] for name in ("FP64", "FP32", "FP16")
    ]
    if way == "http":
        assert expected(40, has_gaps=False) == found["json"]
        assert (expected(2_000), expected(2_000)) == (found["gzip"], found["deflate"])
    else:
        assert (expected(2), expected(40)) == (found["async"], found["packed"])
    for name, problem in {
        "wrong": "'hour' takes",
        "nobody": "no model 'nobody'",
        "no_version": "'9' of 'bikes'",
        "no_output": "no output 'price'",
    }.items():
        assert "InferenceServerException" == found[name][0]
        assert problem in found[name][1]
    assert (["none", ""], ["none", ""], ["none", ""]) == (
        found["no_token"],
        found["load"],
        found["unload"],
    )
    after = found["index_after"]["models"] if way == "grpc" else found["index_after"]
    assert {"bikes": "UNAVAILABLE", "plain": "READY"} == {
        each["name"]: each["state"] for each in after
    }
    assert (["none", ""], True) == (found["load_again"], found["ready_again"])
