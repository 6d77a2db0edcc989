"""PyTorch models as graph and weights, with the library itself.

Its wheels take gigabytes, so no environment here brings it: these tests run where it can be
imported, or where ``EVERLOOP_TEST_TORCH`` names a folder that ``pip install --target`` filled.
"""

from __future__ import annotations

import json
import os
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from everloop.app.models import load_model
from everloop.app.recording import Record, record_model
from everloop.core.errors import IntegrityError, InvalidInput, UnsafeArtifact
from everloop.gate.parity import find_difference
from everloop.kernel.safe_load import LoadPolicy
from everloop.registry.boundary import boundary_rows
from everloop.registry.formats import save_model
from everloop.registry.loaders import Predictor, load_predictor
from everloop.registry.runtimes import RUNTIMES
from everloop.registry.signature import infer_signature
from everloop.storage.localfs import LocalBlobStore
from tests.kit import world

if "EVERLOOP_TEST_TORCH" in os.environ:
    sys.path.append(os.environ["EVERLOOP_TEST_TORCH"])
pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
try:
    import torch
except ImportError:
    pytest.skip(
        "PyTorch is not installed; EVERLOOP_TEST_TORCH may name it", allow_module_level=True
    )

X = np.random.default_rng(0).normal(size=(40, 3))
TABLE = pa.table({"a": X[:, 0], "b": X[:, 1], "c": X[:, 2], "y": X[:, 0]})
POLICY = LoadPolicy()


class Wide(torch.nn.Module):
    """Numbers beside an embedding of a rounded one."""

    def __init__(self) -> None:
        super().__init__()
        self.kinds = torch.nn.Embedding(10, 4)
        self.last = torch.nn.Linear(6, 1)

    def forward(self, rows: Any) -> Any:
        kind = rows[:, 2].abs().clamp(0, 9).long()
        return self.last(torch.cat([rows[:, :2], self.kinds(kind)], 1)).squeeze(1)


class Convolved(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Conv1d(1, 4, 2)
        self.last = torch.nn.Linear(8, 2)

    def forward(self, rows: Any) -> Any:
        return self.last(self.first(rows.unsqueeze(1)).flatten(1)).softmax(1)


class Recurrent(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cells = torch.nn.LSTM(1, 5, batch_first=True)
        self.last = torch.nn.Linear(5, 1)

    def forward(self, rows: Any) -> Any:
        return torch.sigmoid(self.last(self.cells(rows.unsqueeze(-1))[0][:, -1]))


class Attentive(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(1, 8)
        self.middle = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.last = torch.nn.Linear(8, 1)

    def forward(self, rows: Any) -> Any:
        return self.last(self.middle(self.first(rows.unsqueeze(-1))).mean(1))


def plain() -> Any:
    torch.manual_seed(1)
    return torch.nn.Sequential(
        torch.nn.Linear(3, 8),
        torch.nn.BatchNorm1d(8),
        torch.nn.ReLU(),
        torch.nn.Dropout(),
        torch.nn.Linear(8, 1),
    )


MODULES = [plain, Wide, Convolved, Recurrent, Attentive]


def expected(module: Any) -> Any:
    with torch.no_grad():
        return module.eval()(torch.tensor(X, dtype=torch.float32)).numpy()


def opened(files: dict[str, bytes]) -> Predictor:
    return load_predictor("torch", files, POLICY)


class Counting(torch.nn.Module):
    """Answers by how often it was asked, which no graph can."""

    asked = 0

    def forward(self, rows: Any) -> Any:
        type(self).asked += 1
        return rows[:, 0] * self.asked


def test_a_module_that_answers_otherwise_than_its_graph_is_refused() -> None:
    with pytest.raises(InvalidInput) as refused:
        save_model(Counting(), X)

    assert "model.export_differs" == refused.value.code


@pytest.mark.parametrize("make", MODULES, ids=lambda make: make.__name__)
def test_a_module_gets_its_own_answers_to_10_000_rows_at_the_edges_too(make: Any) -> None:
    module = make()
    files = save_model(module, X)[1]
    signature = infer_signature(TABLE, ["a", "b", "c"], "y", "regression")
    edges = boundary_rows(signature, X, None)
    rows = np.concatenate([edges, np.random.default_rng(4).normal(size=(10_000, 3))])[:10_000]
    rows = np.clip(rows, -1e6, 1e6)  # beyond that float32 has no digits left to compare
    predictor = opened(files)

    found = predictor.predict(rows)

    with torch.no_grad():
        told = module.eval()(torch.tensor(rows, dtype=torch.float32)).numpy().reshape(found.shape)
    np.testing.assert_allclose(found, told, rtol=1e-4, atol=1e-5)
    assert isinstance(find_difference(predictor, rows, found, RUNTIMES["torch-graph"]), float)


@pytest.mark.parametrize("make", MODULES, ids=lambda make: make.__name__)
def test_a_module_answers_as_it_does_itself(make: Any) -> None:
    module = make()

    kind, files = save_model(module, X)

    assert ("torch", {"graph.json", "model.safetensors"}) == (kind, set(files))
    found, wanted = opened(files).predict(X), expected(module)
    np.testing.assert_allclose(found, wanted.reshape(found.shape), atol=1e-6)
    assert 1 == len(opened(files).predict(X[:1]))


def test_a_module_is_exported_as_it_evaluates_and_stays_in_training() -> None:
    module = plain().train()

    save_model(module, X)

    assert module.training


def test_an_exported_program_needs_no_example() -> None:
    module = Convolved().eval()
    dynamic = ({0: torch.export.Dim.DYNAMIC},)
    program = torch.export.export(module, (torch.zeros(2, 3),), dynamic_shapes=dynamic)

    files = save_model(program)[1]

    np.testing.assert_allclose(opened(files).predict(X), expected(module), atol=1e-6)


def test_one_module_saved_twice_is_one_artifact() -> None:
    module = plain()

    assert save_model(module, X) == save_model(module, X)


class Branching(torch.nn.Module):
    def forward(self, rows: Any) -> Any:
        return rows[:, 0] if rows.sum() > 0 else rows[:, 1]


class Images(torch.nn.Module):
    def forward(self, rows: Any) -> Any:
        return rows.reshape(-1, 3, 1)


class Random(torch.nn.Module):
    def forward(self, rows: Any) -> Any:
        return rows[:, 0] + torch.rand(1)


@pytest.mark.parametrize(
    "module", [Branching(), Images(), Random()], ids=lambda m: type(m).__name__
)
def test_a_module_that_can_not_be_kept_is_refused(module: Any) -> None:
    with pytest.raises((InvalidInput, UnsafeArtifact)):
        save_model(module, X)


def test_a_module_without_rows_to_try_is_refused() -> None:
    with pytest.raises(InvalidInput) as refused:
        save_model(plain())

    assert "model.example_missing" == refused.value.code


def test_the_three_levels_of_a_version_are_told_apart() -> None:
    here = world()
    module, told = plain(), Record(name="net", target="y", task="regression")
    first = record_model(here.owner, told, module, TABLE)

    same = record_model(here.owner, told, module, TABLE.slice(0, 30))
    with torch.no_grad():
        module[0].weight += 0.5
    other = record_model(here.owner, told, module, TABLE)
    wider = record_model(
        here.owner, Record(name="net", target="z", task="regression"), module, TABLE.drop(["y"])
    )

    versions = [version.version for version in (first, same, other, wider)]
    assert ["1.0.0", "1.0.1", "1.1.0", "2.0.0"] == versions


def test_bytes_swapped_on_the_disk_are_found(tmp_path: Path) -> None:
    here = world(blobs=LocalBlobStore(tmp_path))
    told = Record(name="net", target="y", task="regression")
    version = record_model(here.owner, told, plain(), TABLE)
    for entry in version.files:
        digits = entry.digest.partition(":")[2]
        place = tmp_path / "blake3" / digits[:2] / digits[2:]
        data = bytearray(place.read_bytes())
        data[-1] ^= 1
        place.write_bytes(bytes(data))
        with pytest.raises(IntegrityError):
            load_model(here.owner, "net@1")
        data[-1] ^= 1
        place.write_bytes(bytes(data))

    assert version == load_model(here.owner, "net@1").version


SOUND = save_model(plain(), X)[1]


def changed(**more: Any) -> bytes:
    return json.dumps({**json.loads(SOUND["graph.json"]), **more}).encode()


@pytest.mark.parametrize(
    "call",
    [
        "torch.hub.load",
        "os.system",
        "aten.from_file.default",
        "aten.add_.Tensor",
        "aten.add.out",
        "aten.resize_.default",
        "aten.rand.default",
        "aten.empty.memory_format",
        "aten.as_strided.default",
        "aten.add.__class__",
        "aten.__class__.default",
        "aten.add.op",
        "prims.add.default",
        "getattr",
        "",
    ],
)
def test_a_graph_may_call_nothing_but_what_is_listed(call: str) -> None:
    graph = changed(steps=[{"call": call, "args": []}], answer=0)

    with pytest.raises(UnsafeArtifact) as refused:
        opened({**SOUND, "graph.json": graph})

    assert "artifact.operators_refused" == refused.value.code


def header(told: object, body: bytes = b"") -> bytes:
    text = json.dumps(told).encode()
    return struct.pack("<Q", len(text)) + text + body


@pytest.mark.parametrize(
    "weights",
    [
        b"",
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 100) + b"{}",
        header({}),
        header({"0.weight": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 4]}}),
        header({"0.weight": {"dtype": "F32", "shape": [1], "data_offsets": [0, 2**50]}}, b"1234"),
        header({"0.weight": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}, b"1234"),
        header({"0.weight": {"dtype": "PY", "shape": [1], "data_offsets": [0, 4]}}, b"1234"),
        SOUND["model.safetensors"][:-1],
        SOUND["model.safetensors"] + b"x",
    ],
)
def test_safetensors_with_a_header_that_lies_are_an_input_error(weights: bytes) -> None:
    with pytest.raises(InvalidInput) as refused:
        opened({**SOUND, "model.safetensors": weights})

    assert "model.unreadable" == refused.value.code


def test_a_normalisation_with_weights_of_another_width_never_reaches_its_kernel() -> None:
    from safetensors.torch import load, save

    tensors = load(SOUND["model.safetensors"])
    tensors["1.running_mean"] = torch.zeros(2)

    with pytest.raises(InvalidInput, match="another width"):
        opened({**SOUND, "model.safetensors": save(tensors)}).predict(X)


@pytest.mark.parametrize(
    "steps",
    [
        [{"call": "mul", "args": [[0], 10**12]}],
        [{"call": "mul", "args": [2**62, 2**62]}],
        [{"call": "getitem", "args": [{"of": 0}, 0]}],
        [{"call": "aten.full.default", "args": [[2**40], 0.0]}],
        [{"call": "aten.mm.default", "args": [{"of": 0}, {"of": 0}]}],
        [{"call": "aten.embedding.default", "args": [{"of": 0}, {"of": 2}]}],
        [{"call": "aten.view.default", "args": [{"of": 0}, [10**9, 10**9]]}],
    ],
)
def test_steps_that_ask_for_the_impossible_are_an_input_error(steps: list[Any]) -> None:
    count = len(json.loads(SOUND["graph.json"])["weights"]) + 1
    graph = changed(steps=steps, answer=count)

    with pytest.raises(InvalidInput) as refused:
        opened({**SOUND, "graph.json": graph}).predict(X)

    assert "model.predict_failed" == refused.value.code
