"""Who may ask through the platforms' protocols, and models that answer several numbers a row."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import lightgbm
import numpy as np
import pytest

from everloop.serve.protocol import InputField
from tests.unit.serve.served import ROW, TOKEN, make_folder
from tests.unit.serve.standalone import saved, seal, standing

ASKED = {
    "/invocations": {"dataframe_records": [ROW]},
    "/models/bikes/invocations": {"inputs": [list(ROW.values())]},
    "/v1/models/bikes:predict": {"instances": [ROW]},
    "/v1/models/bikes:explain": {"instances": [ROW]},
    "/score": {"input_data": [list(ROW.values())]},
    "/models/bikes/predict": {"inputs": [ROW]},
    "/models/bikes/whatif": {"inputs": [ROW]},
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    served = make_folder(tmp_path_factory.mktemp("home") / "bikes")
    try:
        served.route(served.seal(1))
        yield served.start().url
    finally:
        served.close()


@pytest.mark.parametrize("path", ASKED)
def test_every_protocol_of_a_home_wants_a_token(home: str, path: str) -> None:
    bare = httpx.post(f"{home}{path}", json=ASKED[path])
    wrong = httpx.post(
        f"{home}{path}", json=ASKED[path], headers={"authorization": "Bearer evl_no"}
    )
    right = httpx.post(
        f"{home}{path}", json=ASKED[path], headers={"authorization": f"Bearer {TOKEN}"}
    )

    assert [401, 401, 200] == [bare.status_code, wrong.status_code, right.status_code]
    assert "Bearer" == bare.headers["www-authenticate"]


def test_lists_and_descriptions_hide_what_a_caller_may_not_ask(home: str) -> None:
    theirs = {"authorization": f"Bearer {TOKEN}"}

    assert [] == httpx.get(f"{home}/").json()["models"]
    assert {} == httpx.get(f"{home}/openapi.json").json()["paths"]
    assert 401 == httpx.get(f"{home}/models/bikes/openapi.json").status_code
    assert 1 == len(httpx.get(f"{home}/", headers=theirs).json()["models"])
    described = httpx.get(f"{home}/models/bikes/openapi.json", headers=theirs).json()
    assert [{"token": []}] == described["security"]


def test_a_model_of_several_classes_answers_by_name_and_is_explained(tmp_path: Path) -> None:
    generator = np.random.default_rng(11)
    rows = generator.normal(size=(300, 2))
    labels = np.digitize(rows[:, 0], [-0.4, 0.4])
    params = {"objective": "multiclass", "num_class": 3, "verbose": -1, "num_threads": 1}
    booster = lightgbm.train(params, lightgbm.Dataset(rows, labels), num_boost_round=4)
    names = ("low", "middle", "high")
    bundle = seal(
        tmp_path / "bundle",
        model=booster.model_to_string().encode(),
        inputs=tuple(InputField(name=name, dtype="float64") for name in "ab"),
        outputs=names,
        task="classification",
        golden=(),
        attached={"background.npy": saved(rows[:50])},
        background="background.npy",
    )
    expected = np.asarray(booster.predict(rows[:2])).tolist()
    asked = [{"a": float(a), "b": float(b)} for a, b in rows[:2]]

    with standing(str(bundle), "--port", "0") as url:
        plain = httpx.post(
            f"{url}/models/bikes/predict", json={"inputs": asked, "explain": True}
        ).json()
        theirs = httpx.post(f"{url}/invocations", json={"dataframe_records": asked}).json()
        card = httpx.get(f"{url}/models/bikes").json()

    found = [prediction["outputs"] for prediction in plain["predictions"]]
    assert [dict(zip(names, row, strict=True)) for row in expected] == found
    assert all("output" not in prediction for prediction in plain["predictions"])
    assert expected == theirs["predictions"]
    assert list(names) == card["outputs"]
    why = plain["explanation"]
    for row, answer in zip(why["rows"], expected, strict=True):
        total = np.array(why["base"]) + np.sum(list(row["values"].values()), axis=0)
        np.testing.assert_allclose(answer, total, rtol=1e-9)
