"""Builds an edge bundle: one file out of a model version that passed its gate.

The same bytes come out for the same version, so a bundle is named by its SHA-256. Before anything
is signed, the code that will run on the device answers thousands of rows here, at the splits of the
trees and beside them, and must answer as the training framework does.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import tempfile
import zipfile
from pathlib import Path
from typing import Any, Final, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from everloop.core.canonical import canonical_json
from everloop.core.digest import Digest
from everloop.core.errors import GateFailed, InvalidInput
from everloop.core.ports import BlobStore, Signer
from everloop.edge import device
from everloop.edge.device.bundle import MANIFEST, MANIFEST_CONTEXT, SIGNATURE, open_bundle
from everloop.edge.device.graph import Graph
from everloop.edge.device.refusal import EdgeError
from everloop.edge.device.trees import Forest
from everloop.edge.trees import categories_of, from_lightgbm, from_xgboost, thresholds_of
from everloop.kernel.safe_load import LoadPolicy
from everloop.registry.bounds import output_bounds
from everloop.registry.formats import native_files, open_version, read_model_files
from everloop.registry.loaders import Predictor
from everloop.registry.model import ModelVersion

Matrix: TypeAlias = npt.NDArray[np.float64]
PACKAGE: Final = "everloop_edge"
FORMATS: Final = ("lightgbm", "xgboost", "onnx")
PARITY_ROWS: Final = 10_000
GOLDEN_ROWS: Final = 32
# A device has another processor and other libraries: the last bits of an exponential may differ.
TOLERANCES: Final = {"lightgbm": 1e-12, "xgboost": 3e-7, "onnx": 1e-6}
# A file that was cut has lost its end, where a zip's directory is: Python takes it for source code
# and reads these two lines. The name of an encoding is the only thing that it says of them.
_HEAD: Final = b"""\
#!/usr/bin/env python3
# coding: edge.unreadable--this-file-is-cut-short--fetch-it-again-or-export-it-again
"""
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
# Python imports from a zip without comparing checksums, and an old one can't read the code: this
# part is written for any Python, and looks first.
_MAIN: Final = f"""\
import sys
import zipfile


def refuse(what, hint):
    sys.stderr.write("%s [edge.unreadable] %s\\n" % (what, hint))
    sys.exit(1)


if sys.version_info < (3, 9):
    refuse("This needs Python 3.9 or newer.", "Run it with a newer Python.")
try:
    with zipfile.ZipFile(sys.path[0]) as archive:
        for name in archive.namelist():
            if name.startswith("{PACKAGE}/"):
                archive.read(name)
except Exception as error:
    refuse("The bundle is damaged: %r." % error, "Fetch it again, or export it again.")

from {PACKAGE}.main import main

sys.exit(main())
"""


class Golden(msgspec.Struct, frozen=True, kw_only=True):
    """A question by name with the answer that the gate was given."""

    inputs: dict[str, bool | int | float | str | None]
    expected: float


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """What a bundle is made of.

    Attributes:
        version: The model version.
        golden: The gate's golden rows, as JSON; None where there are none.
        evidence: ``kind:id`` of the report or waiver that admitted it.
        masked: Inputs that are never logged on the device.
    """

    version: ModelVersion
    golden: bytes | None
    evidence: str
    masked: tuple[str, ...] = ()


class Parity(msgspec.Struct, frozen=True, kw_only=True):
    """How the device's answers compare with the training framework's.

    Attributes:
        rows: Rows compared: random ones, and ones at the splits and beside them.
        different: Answers that are not the same to the last bit.
        max_difference: Largest absolute difference.
    """

    rows: int
    different: int
    max_difference: float


class Built(msgspec.Struct, frozen=True, kw_only=True):
    """A bundle: its bytes, their SHA-256, and what was measured."""

    data: bytes
    digest: Digest
    parity: Parity


def build_bundle(source: Source, blobs: BlobStore, policy: LoadPolicy, signer: Signer) -> Built:
    """Build, prove and seal the bundle of a version.

    Raises:
        InvalidInput: ``edge.format_unsupported`` or ``edge.model_unsupported``.
        GateFailed: ``edge.parity`` or ``edge.golden`` when the device would answer otherwise.
        IntegrityError, UnsafeArtifact, MissingExtra: its files do not verify or cannot be read.
    """
    version = source.version
    format_name, files = native_files(version, read_model_files(blobs, version))
    if format_name not in FORMATS:
        raise InvalidInput(
            "edge.format_unsupported",
            f"{version.name}@{version.version} is a {format_name} model.",
            hint=f"Devices answer with {', '.join(FORMATS)}; register it as one of those.",
        )
    predictor = open_version(blobs, version, policy)
    try:
        model, told, plan = _convert(format_name, files, predictor)
        rows = _parity_rows(version, told, predictor.inputs)
        parity = _prove(version, predictor, model, rows, TOLERANCES[format_name])
        golden = _golden(predictor, model, rows, source.golden, TOLERANCES[format_name])
    finally:
        predictor.close()
    inner = _code_files()
    if told is None:
        inner["bundle/model.onnx"] = next(iter(files.values()))
    else:
        inner["bundle/model.json"] = json.dumps(told, separators=(",", ":")).encode()
    manifest = {
        **_about(source, blobs),
        "key": signer.public_key.hex(),
        "format": format_name,
        "model_kind": "onnx" if told is None else "trees",
        "plan": plan,
        "golden": golden,
        "parity": msgspec.to_builtins(parity),
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in inner.items()},
    }
    text = canonical_json(manifest)
    inner[MANIFEST] = text
    inner[SIGNATURE] = signer.sign(MANIFEST_CONTEXT + text).hex().encode()
    data = _zip(inner)
    _require_golden(data, version, signer)
    return Built(
        data=data,
        digest=Digest("sha256:" + hashlib.sha256(data).hexdigest()),
        parity=parity,
    )


def _require_golden(data: bytes, version: ModelVersion, signer: Signer) -> None:
    """Let pass a file that a device would open: by the same code, from its first byte on.

    Raises:
        GateFailed: ``edge.golden``.
    """
    with tempfile.TemporaryDirectory(prefix="everloop-edge-") as folder:
        path = Path(folder) / "bundle.pyz"
        path.write_bytes(data)
        try:
            open_bundle(path, signer.public_key)
        except EdgeError as error:
            raise GateFailed(
                "edge.golden",
                f"A device would refuse {version.name}@{version.version}: {error}",
                hint="Report the model's signature and library version; nothing was sealed.",
            ) from error


def _about(source: Source, blobs: BlobStore) -> dict[str, Any]:
    """Return what a manifest says of the version itself."""
    version = source.version
    return {
        "kind": "everloop edge bundle",
        "form": 1,
        "model": version.name,
        "version": version.version,
        "version_id": version.id,
        "number": version.number,
        "artifact": version.artifact,
        "evidence": source.evidence,
        "task": version.signature.task,
        "inputs": msgspec.to_builtins(version.signature.inputs),
        "output_name": version.signature.output.name,
        "outputs": [field.name for field in version.signature.outputs],
        "columns": _columns(version, blobs, source.masked),
        **_bounds(version),
    }


def _convert(
    format_name: str, files: dict[str, bytes], predictor: Predictor
) -> tuple[Forest | Graph, dict[str, Any] | None, dict[str, Any] | None]:
    data = next(iter(files.values()))
    if format_name == "onnx":
        from everloop.registry.adapters.onnx_runtime import OnnxPredictor

        assert isinstance(predictor, OnnxPredictor)
        plan = predictor.plan()
        return Graph(data, plan), None, plan
    told = from_lightgbm(data) if format_name == "lightgbm" else from_xgboost(data)
    # What the device will read, not what was written: numbers pass through their text.
    told = json.loads(json.dumps(told))
    return Forest(told), told, None


def _parity_rows(version: ModelVersion, told: dict[str, Any] | None, inputs: int) -> Matrix:
    """Return rows over the range seen in training and past it, many of them at the splits."""
    generator = np.random.default_rng(20_260_101)
    fields = version.signature.inputs
    rows = np.empty((PARITY_ROWS, inputs))
    thresholds = thresholds_of(told) if told else {}
    codes = categories_of(told) if told else {}
    for place in range(inputs):
        field = fields[place]
        low = 0.0 if field.minimum is None else field.minimum
        high = low + 1.0 if field.maximum is None else field.maximum
        margin = (high - low or 1.0) * 0.25
        rows[:, place] = generator.uniform(low - margin, high + margin, PARITY_ROWS)
        count = max(len(field.categories or ()), codes.get(place, -1) + 2)
        if field.categories is not None or place in codes:
            rows[:, place] = generator.integers(0, max(count, 1), PARITY_ROWS)
        elif field.dtype in {"int64", "bool"}:
            rows[:, place] = np.round(rows[:, place]) if field.dtype == "int64" else rows[:, place]
        if field.dtype == "bool":
            rows[:, place] = generator.integers(0, 2, PARITY_ROWS)
        _move_to_splits(rows[:, place], thresholds.get(place), generator)
        if field.nullable or told is not None:
            rows[generator.random(PARITY_ROWS) < 0.03, place] = np.nan
    return rows


def _move_to_splits(
    column: Matrix, thresholds: list[float] | None, generator: np.random.Generator
) -> None:
    """Put half of a column on the numbers by which trees split, and one step beside them."""
    if not thresholds:
        return
    chosen = np.flatnonzero(generator.random(len(column)) < 0.5)
    values = generator.choice(np.asarray(thresholds), chosen.size)
    step = generator.integers(0, 5, chosen.size)
    single = values.astype(np.float32)
    beside = (
        values,
        np.nextafter(values, -np.inf),
        np.nextafter(values, np.inf),
        np.nextafter(single, np.float32(np.inf)).astype(np.float64),
        np.nextafter(single, np.float32(-np.inf)).astype(np.float64),
    )
    column[chosen] = np.choose(step, beside)


def _prove(
    version: ModelVersion,
    predictor: Predictor,
    model: Forest | Graph,
    rows: Matrix,
    tolerance: float,
) -> Parity:
    theirs = np.asarray(predictor.predict(rows))
    ours = np.asarray(model.predict(rows.tolist()), dtype=np.float64)
    # The device may answer row by row, without numpy: that way is proven, too.
    alone = np.asarray([model.predict([row])[0] for row in rows[:500].tolist()])
    same = (theirs == ours) | (np.isnan(theirs) & np.isnan(ours))
    gap = np.abs(np.where(same, 0.0, ours - theirs))
    is_close = np.isclose(ours, theirs, rtol=tolerance, atol=tolerance, equal_nan=True).all()
    if not (is_close and np.allclose(alone, theirs[:500], tolerance, tolerance, equal_nan=True)):
        raise GateFailed(
            "edge.parity",
            f"On a device {version.name}@{version.version} would answer otherwise: "
            f"{int((~same).sum())} of {theirs.size} answers differ, by up to {gap.max():.3g}.",
            hint="Report the model's objective and library version; nothing was sealed.",
            context={"max_difference": float(gap.max())},
        )
    return Parity(rows=len(rows), different=int((~same).sum()), max_difference=float(gap.max()))


def _golden(
    predictor: Predictor, model: Forest | Graph, rows: Matrix, told: bytes | None, tolerance: float
) -> dict[str, Any]:
    """Return golden answers of the training framework: the gate's by name, ours at the splits."""
    chosen = rows[:GOLDEN_ROWS]
    answers = np.asarray(predictor.predict(chosen))
    finite = np.isfinite(answers).reshape(len(chosen), -1).all(axis=1)
    named = msgspec.json.decode(told, type=tuple[Golden, ...]) if told else ()
    return {
        "rows": [_nulled(row) for row in chosen[finite].tolist()],
        "answers": answers[finite].tolist(),
        "tolerance": tolerance,
        "named": [{"inputs": row.inputs, "answer": row.expected} for row in named],
    }


def _nulled(row: list[float]) -> list[float | None]:
    return [None if math.isnan(value) else value for value in row]


def _columns(
    version: ModelVersion, blobs: BlobStore, masked: tuple[str, ...]
) -> list[dict[str, Any]]:
    """Return how each input is counted on the device: the frozen reference of the training data."""
    known: dict[str, Any] = {}
    if version.reference is not None:
        known = msgspec.json.decode(blobs.get(version.reference))["columns"]
    columns = []
    for field in version.signature.inputs:
        told = known.get(field.name, {"type": "opaque"})
        column = {"name": field.name, "kind": told["type"]}
        if told["type"] == "numeric":
            column["edges"] = told["edges"]
        elif told["type"] == "category":
            column["known"], column["complete"] = told["known"], told["complete"]
        if field.name in masked:
            column = {"name": field.name, "kind": "opaque", "masked": True}
        columns.append(column)
    return columns


def _bounds(version: ModelVersion) -> dict[str, float | None]:
    """Return the least and the largest answer that counts as valid, as the server has them."""
    low, high = output_bounds(version.signature)
    if version.signature.outputs:
        low, high = (0.0, 1.0) if version.signature.task == "classification" else (None, None)
    return {"output_minimum": low, "output_maximum": high}


def _code_files() -> dict[str, bytes]:
    """Return the device's code under the name that it has inside of a bundle."""
    folder = Path(device.__file__).parent
    code = {
        f"{PACKAGE}/{path.name}": path.read_text(encoding="utf-8")
        .replace("everloop.edge.device", PACKAGE)
        .encode()
        for path in sorted(folder.glob("*.py"))
    }
    return {"__main__.py": _MAIN.encode(), **code}


def _zip(files: dict[str, bytes]) -> bytes:
    """Return a zip of the files that has the same bytes every time, and runs as a program."""
    buffer = io.BytesIO()
    buffer.write(_HEAD)
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name in sorted(files):
            info = zipfile.ZipInfo(name, _EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            archive.writestr(info, files[name])
    return buffer.getvalue()
