"""The one model that every server answers with, and the requests that every server is sent.

LightGBM, 200 trees of 31 leaves over 30 numeric features. The rows are drawn once from a fixed
seed; 64 different ones take turns, so that no cache and no branch predictor learns a single row.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

FEATURES, TREES, ROWS = 30, 200, 5_000
VARIANTS = 64
BATCH = 1_000
HEAD_BYTES = 256
NAMES = [f"feature_{number}" for number in range(FEATURES)]
Matrix = npt.NDArray[np.float64]


def train(shift: float = 0.0) -> str:
    """Return the model as LightGBM's text; the shift moves every answer, to tell versions apart."""
    import lightgbm

    random = np.random.default_rng(7)
    inputs = random.normal(size=(ROWS, FEATURES))
    noise = random.normal(size=ROWS) * 0.1
    target = inputs[:, 0] * 3 + np.sin(inputs[:, 1] * 2) + noise + shift
    data = lightgbm.Dataset(inputs, target, feature_name=NAMES)
    settings = {"objective": "regression", "verbose": -1, "num_threads": 1, "num_leaves": 31}
    return str(lightgbm.train(settings, data, num_boost_round=TREES).model_to_string())


def rows(count: int = VARIANTS, seed: int = 11) -> Matrix:
    """Return rows to ask about; the same ones for the same seed."""
    return np.random.default_rng(seed).normal(size=(count, FEATURES)).round(6)


def answers(text: str, asked: Matrix) -> Matrix:
    """Return what the training framework answers."""
    import lightgbm

    booster = lightgbm.Booster(model_str=text)
    return np.asarray(booster.predict(asked, num_threads=1), dtype=np.float64)


def records(asked: Matrix) -> bytes:
    """Return the rows as JSON records under the names of the signature."""
    return _dump({"inputs": [dict(zip(NAMES, row, strict=True)) for row in asked.tolist()]})


def matrix(asked: Matrix) -> bytes:
    """Return the rows as a JSON list of lists."""
    return _dump({"rows": asked.tolist()})


def split(asked: Matrix) -> bytes:
    """Return the rows as MLflow's ``dataframe_split``."""
    return _dump({"dataframe_split": {"columns": NAMES, "data": asked.tolist()}})


def tensor(asked: Matrix) -> bytes:
    """Return the rows as one tensor of the Open Inference Protocol, in JSON."""
    return _dump({"inputs": [_head(asked) | {"data": asked.ravel().tolist()}]})


def binary(asked: Matrix) -> bytes:
    """Return the rows as a binary tensor; its JSON part is padded to ``HEAD_BYTES``."""
    data = np.ascontiguousarray(asked, dtype="<f8").tobytes()
    head = _head(asked) | {"parameters": {"binary_data_size": len(data)}}
    text = _dump({"inputs": [head]} | {"parameters": {"binary_data_output": True}})
    return text.ljust(HEAD_BYTES) + data


def write_bodies(folder: Path, bodies: Sequence[bytes]) -> Path:
    """Write request bodies for the load generators, one file each."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, body in enumerate(bodies):
        (folder / f"{number:03}").write_bytes(body)
    return folder


def _head(asked: Matrix) -> dict[str, object]:
    return {"name": "input", "shape": list(asked.shape), "datatype": "FP64"}


def _dump(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
