"""Answers over HTTP against the training frameworks' own, for every runtime in one process.

Random rows, and rows on both sides of every threshold of the model, go through JSON one by one and
many at once, and through binary tensors. What is the same library must give the same bits.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec
import numpy as np
from onnx.reference import ReferenceEvaluator

from everloop.core.digest import content_digest
from everloop.core.wire import Routes, Target, TokenHash
from everloop.kernel.authz import hash_secret
from everloop.kernel.signing import Ed25519Signer
from everloop.registry.boundary import boundary_rows
from everloop.registry.forest import find_forest
from everloop.registry.formats import save_model
from everloop.registry.runtimes import DEFAULTS, RUNTIMES
from everloop.registry.signature import Signature
from everloop.serve.bundle import Bundle, write_bundle
from everloop.serve.files import write_atomically
from everloop.serve.protocol import InputField
from tests.parts.raw_http import Answer, RawLink, request
from tests.unit.registry.zoo import NAMES, ONE_NUMBER, SEVERAL_NUMBERS, Rows, Sample, signature_of
from tests.unit.registry.zoo import X as KNOWN
from tests.unit.serve.served import TOKEN, Served, make_folder, version_id

HEADERS = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
BATCH = 500
SINGLES = 100
SHARE_OF_EDGES = 0.5


class Case(NamedTuple):
    """A model in one deployment, and what its framework answers."""

    name: str
    kind: str
    outputs: int
    rows: Rows
    expected: Rows


def compare(folder: Path, *, rows: int) -> dict[str, float]:
    """Return by deployment the largest difference, as a share of the answer or below 1 as such."""
    cases = []
    for sample in ONE_NUMBER:
        cases.append(_case(folder, sample, 0, rows))
    for sample in SEVERAL_NUMBERS:
        cases.append(_case(folder, sample, 3, rows))
    with _serving(folder) as link:
        return {case.name: max(_differences(case, link)) for case in cases}


def tolerance(name: str) -> float:
    """Return how far answers of a deployment may lie from the framework's."""
    runtime = RUNTIMES[DEFAULTS[name.partition("-")[0]]]
    return runtime.tolerance + runtime.rounding


def _differences(case: Case, link: RawLink) -> Iterator[float]:
    for start in range(0, len(case.rows), BATCH):
        part = slice(start, start + BATCH)
        yield _difference(case.expected[part], _by_tensor(case, link, case.rows[part]))
        if not case.outputs:
            yield _difference(case.expected[part], _by_records(case, link, case.rows[part]))
    for place in range(0, len(case.rows), max(1, len(case.rows) // SINGLES)):
        one = slice(place, place + 1)
        yield _difference(case.expected[one], _by_tensor(case, link, case.rows[one]))
        if not case.outputs:
            yield _difference(case.expected[one], _by_records(case, link, case.rows[one]))


def _difference(expected: Rows, found: Rows) -> float:
    assert expected.shape == found.shape
    return float(np.max(np.abs(expected - found) / np.maximum(1.0, np.abs(expected))))


def _by_records(case: Case, link: RawLink, rows: Rows) -> Rows:
    inputs = [dict(zip(NAMES, row, strict=True)) for row in rows.tolist()]
    answer = _ask(link, f"/models/{case.name}/predict", json.dumps({"inputs": inputs}).encode(), {})
    return np.array([each["output"] for each in json.loads(answer.body)["predictions"]])


def _by_tensor(case: Case, link: RawLink, rows: Rows) -> Rows:
    data = np.ascontiguousarray(rows, dtype="<f8").tobytes()
    tensor = {
        "name": "input",
        "shape": list(rows.shape),
        "datatype": "FP64",
        "parameters": {"binary_data_size": len(data)},
    }
    ask = {"inputs": [tensor], "parameters": {"binary_data_output": True}}
    head = json.dumps(ask).encode()
    sizes = {"Inference-Header-Content-Length": str(len(head))}
    answer = _ask(link, f"/v2/models/{case.name}/infer", head + data, sizes)
    length = int(answer.headers["inference-header-content-length"])
    (told,) = json.loads(answer.body[:length])["outputs"]
    assert "FP64" == told["datatype"]
    found = np.frombuffer(answer.body[length:], dtype="<f8")
    return found.reshape((len(rows), case.outputs) if case.outputs else len(rows))


def _ask(link: RawLink, path: str, body: bytes, headers: dict[str, str]) -> Answer:
    link.send(request(path=path, body=body, headers=HEADERS | headers))
    answer = link.read()
    assert answer is not None
    assert 200 == answer.status, answer.body[:500]
    return answer


@contextmanager
def _serving(folder: Path) -> Iterator[RawLink]:
    served: Served = make_folder(folder)
    try:
        served.start()
        url = urlsplit(json.loads((folder / "server.json").read_bytes())["url"])
        with RawLink(str(url.hostname), int(url.port or 0)) as link:
            yield link
    finally:
        served.close()


def _case(folder: Path, sample: Sample, outputs: int, count: int) -> Case:
    name = f"{sample.kind}-{outputs or 'one'}"
    model = sample.make(3)
    found, files = save_model(model)
    names = tuple(f"class {place}" for place in range(outputs))
    signature = signature_of(names, "classification" if outputs else "regression")
    chance = np.random.default_rng(7)
    forest = find_forest(found, files)
    # Rows at the ends of the numbers overflow in a linear model, and are no answers there.
    most = int(count * SHARE_OF_EDGES) if forest is not None else 0
    edges = boundary_rows(signature, KNOWN, forest, most=most)
    random = chance.normal(size=(count - len(edges), len(NAMES))) * 2
    rows = np.concatenate([edges, random])
    _seal(folder / name, found, files, signature)
    answers = _true_answers(sample.kind, model, rows)
    expected = np.asarray(answers, dtype=np.float64).reshape(
        (len(rows), outputs) if outputs else len(rows)
    )
    return Case(name, sample.kind, outputs, rows, expected)


def _true_answers(kind: str, model: Any, rows: Rows) -> Any:
    """Return what the training framework answers."""
    if kind == "lightgbm":
        return model.predict(rows, num_threads=1)
    if kind == "xgboost":
        return model.inplace_predict(rows)
    if kind == "onnx":
        found: Any = ReferenceEvaluator(model).run(None, {"rows": rows.astype(np.float32)})
        return found[0]
    return model.predict_proba(rows) if hasattr(model, "predict_proba") else model.predict(rows)


def _seal(place: Path, found: str, files: dict[str, bytes], signature: Signature) -> None:
    name = place.name
    signer = Ed25519Signer("evaluator", os.urandom(32))
    bundle = Bundle(
        deployment=name,
        model=name,
        version_id=version_id(1),
        number=1,
        semver="1.0.0",
        artifact=content_digest(b"".join(files.values())),
        format=found,
        task=signature.task,
        inputs=tuple(InputField(name=each, dtype="float64") for each in NAMES),
        output_name="y",
        golden=(),
        files={each: content_digest(data) for each, data in files.items()},
        runtime=DEFAULTS[found],
        outputs=tuple(field.name for field in signature.outputs),
    )
    path = f"bundles/{bundle.version_id}"
    write_bundle(place / path, bundle, files, signer)
    routes = Routes(
        epoch=1,
        deployment=name,
        public_key=signer.public_key.hex(),
        tokens=(TokenHash(hash=hash_secret(TOKEN), expires_at=datetime(2100, 1, 1, tzinfo=UTC)),),
        champion=Target(version_id=bundle.version_id, bundle=path),
    )
    write_atomically(place / "routes.json", msgspec.json.encode(routes))
