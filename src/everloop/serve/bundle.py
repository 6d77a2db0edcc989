"""Sealed bundles: a model version as files that the serving process can verify by itself.

A bundle is trusted when its description is signed by the key named in the routes, every file has
the digest named there, and the model, once loaded, repeats its golden answers on this machine.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from everloop.core.canonical import canonical_json
from everloop.core.digest import Digest, content_digest
from everloop.core.errors import EverloopError, IntegrityError
from everloop.core.ids import Id
from everloop.core.ports import Signer
from everloop.core.wire import Scalar
from everloop.kernel.signing import is_signed
from everloop.serve.decode import FloatArray, RowDecoder
from everloop.serve.protocol import InputField
from everloop.serve.runtime import Model, Predictor, open_model

DESCRIPTION = "bundle.json"
SIGNATURE = "bundle.sig"
KEY = "bundle.pub"
GOLDEN_TOLERANCE = 1e-9  # relative; other processors may round the last bits of a sum differently


class GoldenAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Inputs and what the version answered to them when it was registered."""

    inputs: dict[str, Scalar]
    expected: float | tuple[float, ...]


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What a server may know and show of the runtime that answers, sealed in its bundle.

    A part of the registry's ``ServingProof``: the gate's evidence also names blobs and why other
    runtimes were refused, which mean nothing where there is no registry.

    Attributes:
        runtime_version: The package and version that answered, such as ``lightgbm 4.7.0``.
        reference: Whose answers it was held against, in words.
        rows: On how many rows.
        max_difference: The largest difference of two answers.
        tolerance: How much was allowed, as a share of the answer, or as such below 1.
        p50_us: Median time of a row, in microseconds.
        p99_us: The 99th percentile of it.
        best_batch: How many rows at once it answers at nearly its best rate.
        rows_per_s: That rate.
    """

    runtime_version: str
    reference: str
    rows: int
    max_difference: float
    tolerance: float
    p50_us: float
    p99_us: float
    best_batch: int
    rows_per_s: float


class Bundle(msgspec.Struct, frozen=True, kw_only=True):
    """The description of a bundle; the signature covers its canonical JSON.

    Attributes:
        artifact: Digest of the model version's artifact, to which gates and approvals are bound.
        output_minimum: Least output that counts as valid; None for no bound. The margin for
            values that training never saw is already in it.
        trusted_types: Types a scikit-learn model may hold, by the policy of the server that
            sealed this.
        files: Digest by file name of the model's files.
        runtime: What loads them, as the gate chose; empty for the usual one of the format.
        verdict: What the gate measured; None for a version that never passed one.
        outputs: Names of the numbers of an answer; empty where it is one number a row.
        masked: Inputs that must never be written to a log.
        weak_isolation: Whether a Python function may run where its process can't be locked.
        boundary: File of rows with the answers that the training framework gave to them.
        background: File of rows of the training data, for explanations.
        reference: File of the frozen drift reference (`everloop.data.profile.Reference` as JSON).
        profile: File of the profile of the training data (`everloop.data.profile.Profile`).
        contract: File of the data contract (JSON) that rows of the training data kept.
        attachments: Digest by file name of these files.
    """

    deployment: str
    model: str
    version_id: Id
    number: int
    semver: str
    artifact: Digest
    format: str
    task: Literal["regression", "classification"]
    inputs: tuple[InputField, ...]
    output_name: str
    output_minimum: float | None = None
    output_maximum: float | None = None
    golden: tuple[GoldenAnswer, ...]
    trusted_types: tuple[str, ...] = ()
    files: dict[str, Digest]
    runtime: str = ""
    verdict: Verdict | None = None
    outputs: tuple[str, ...] = ()
    masked: tuple[str, ...] = ()
    weak_isolation: bool = False
    boundary: str = ""
    background: str = ""
    reference: str = ""
    profile: str = ""
    contract: str = ""
    attachments: dict[str, Digest] = {}


class LoadedBundle:
    """A verified bundle with its model in memory. Read-only, safe between threads.

    Attributes:
        model: A matrix of rows gives one number, or one row of numbers, for each of them.
        predictor: What it is a method of, with `predict_one` and `close`; None where only the
            method was given.
        background: Rows of the training data as the model takes them; None without them.
        reference: The frozen drift reference as JSON; None without one.
        profile: The profile of the training data as JSON; None without one.
    """

    def __init__(
        self,
        bundle: Bundle,
        model: Model,
        predictor: Predictor | None = None,
        attached: Mapping[str, bytes] = MappingProxyType({}),
    ) -> None:
        self.bundle = bundle
        self.model = model
        self.predictor = predictor
        self.rows = RowDecoder(bundle.inputs, bundle.deployment or bundle.model)
        self.reference = attached.get(bundle.reference)
        self.profile = attached.get(bundle.profile)
        kept = attached.get(bundle.background)
        self.background = read_array(kept) if kept is not None else None

    def close(self) -> None:
        """Free the model's memory; idempotent."""
        if self.predictor is not None:
            self.predictor.close()

    def golden_matrix(self) -> FloatArray:
        """Return the golden rows as the model takes them."""
        rows = [self.rows.from_values(answer.inputs) for answer in self.bundle.golden]
        if not rows:
            return np.empty((0, len(self.bundle.inputs)))
        return self.rows.to_matrix(rows)

    def is_valid(self, output: float) -> bool:
        """Tell whether an output is a number within the bounds of the bundle."""
        low, high = self.bundle.output_minimum, self.bundle.output_maximum
        return (
            math.isfinite(output)
            and (low is None or output >= low)
            and (high is None or output <= high)
        )


def write_bundle(folder: Path, bundle: Bundle, files: Mapping[str, bytes], signer: Signer) -> None:
    """Write a bundle so that it appears complete or not at all; an existing one is left alone.

    Raises:
        IntegrityError: ``bundle.file_changed`` when a file has not the digest in ``bundle.files``.
    """
    if folder.exists():
        return
    _require_files({**bundle.files, **bundle.attachments}, files)
    text = canonical_json(bundle)
    draft = folder.with_name(f".{folder.name}.{os.getpid()}")
    draft.mkdir(parents=True, exist_ok=True)
    for name, data in {**files, DESCRIPTION: text}.items():
        _write_durably(draft / name, data)
    _write_durably(draft / SIGNATURE, signer.sign(text).hex().encode())
    _write_durably(draft / KEY, signer.public_key.hex().encode())
    try:
        draft.rename(folder)
    except OSError:  # another process was first with the same, sealed content
        if not folder.exists():
            raise


def read_key(folder: Path) -> str:
    """Return the hex of the key that a bundle names itself.

    It shows that nothing rotted, not who sealed it.

    Raises:
        IntegrityError: ``bundle.unreadable``.
    """
    try:
        return (folder / KEY).read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        raise _unreadable(folder, f"it names no key, and none was given: {error}") from error


def key_bytes(text: str) -> bytes:
    """Return the bytes of a key written in hex; none of what is no hex."""
    try:
        return bytes.fromhex(text)
    except ValueError:
        return b""


def read_name(folder: Path) -> str:
    """Return the name under which a bundle is served, before anything of it is trusted.

    Raises:
        IntegrityError: ``bundle.unreadable``.
    """
    try:
        told = msgspec.json.decode((folder / DESCRIPTION).read_bytes(), type=_Named)
    except (OSError, msgspec.MsgspecError) as error:
        raise _unreadable(folder, str(error)) from error
    return told.deployment or told.model


class _Named(msgspec.Struct):
    deployment: str
    model: str


def _write_durably(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def open_bundle(folder: Path, public_key: bytes) -> LoadedBundle:
    """Verify a bundle, load its model and let it repeat its golden answers.

    Raises:
        IntegrityError: ``bundle.unreadable``, ``bundle.signature``, ``bundle.file_changed`` or
            ``bundle.golden``.
        UnsafeArtifact: the format is not one that is served.
        MissingExtra: the format needs a package that is not installed.
    """
    bundle, sealed = read_sealed(folder, public_key)
    files = {name: sealed[name] for name in bundle.files}
    predictor = open_predictor(bundle, files)
    try:
        loaded = LoadedBundle(bundle, predictor.predict, predictor, sealed)
        _require_golden(loaded)
        if bundle.boundary:
            _require_boundary(loaded, sealed.get(bundle.boundary, b""))
    except EverloopError:
        predictor.close()
        raise
    return loaded


def read_sealed(folder: Path, public_key: bytes) -> tuple[Bundle, dict[str, bytes]]:
    """Return what a bundle says of itself, and its files, all of which are as they were sealed.

    Raises:
        IntegrityError: ``bundle.unreadable``, ``bundle.signature`` or ``bundle.file_changed``.
    """
    bundle = read_description(folder, public_key)
    try:
        sealed = {
            name: _confined(folder, name).read_bytes()
            for name in (*bundle.files, *bundle.attachments)
        }
    except OSError as error:
        raise _unreadable(folder, str(error)) from error
    _require_files({**bundle.files, **bundle.attachments}, sealed)
    return bundle, sealed


def open_predictor(bundle: Bundle, files: Mapping[str, bytes]) -> Predictor:
    """Load the model of a bundle from its verified files.

    Raises:
        EverloopError: as `open_bundle`.
    """
    return open_model(
        bundle.format,
        files,
        len(bundle.inputs),
        trusted_types=bundle.trusted_types,
        runtime=bundle.runtime,
        outputs=len(bundle.outputs),
        weak_isolation=bundle.weak_isolation,
    )


def read_array(data: bytes) -> npt.NDArray[np.float64]:
    """Return an array of numbers in NumPy's own file format; nothing in it can run.

    Raises:
        IntegrityError: ``bundle.unreadable``.
    """
    try:
        found = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise _unreadable(Path("rows"), str(error)) from error
    return np.asarray(found, dtype=np.float64)


def read_description(folder: Path, public_key: bytes) -> Bundle:
    """Return what a bundle says of itself, after verifying its signature and nothing else.

    Raises:
        IntegrityError: ``bundle.unreadable`` or ``bundle.signature``.
    """
    try:
        text = (folder / DESCRIPTION).read_bytes()
        signature = bytes.fromhex((folder / SIGNATURE).read_text(encoding="ascii"))
        if is_signed(public_key, signature, text):
            return msgspec.json.decode(text, type=Bundle)
    except (OSError, ValueError) as error:
        raise _unreadable(folder, str(error)) from error
    raise IntegrityError(
        "bundle.signature",
        f"The bundle {folder.name} is not signed by the expected key.",
        hint="Write the bundle again from the registry; find out who changed it.",
    )


def _unreadable(folder: Path, problem: str) -> IntegrityError:
    return IntegrityError(
        "bundle.unreadable",
        f"The bundle {folder.name} cannot be read: {problem[:200]}.",
        hint="Write the bundle again from the registry.",
    )


def _confined(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()) or path.is_symlink():
        raise _unreadable(folder, f"the file name {name[:60]!r} leads out of it")
    return path


def _require_files(sealed: Mapping[str, Digest], files: Mapping[str, bytes]) -> None:
    found = {name: content_digest(data) for name, data in files.items()}
    if found == sealed:
        return
    names = {*found, *sealed}
    wrong = sorted(name for name in names if found.get(name) != sealed.get(name))
    raise IntegrityError(
        "bundle.file_changed",
        f"Files of the bundle are not what was sealed: {', '.join(wrong)[:200]}.",
        hint="Write the bundle again from the registry; find out who changed it.",
    )


def _require_golden(loaded: LoadedBundle) -> None:
    golden = loaded.bundle.golden
    if not golden:
        return
    width = len(loaded.bundle.outputs) or 1
    expected = np.array([answer.expected for answer in golden], dtype=np.float64)
    _require_answers(loaded, loaded.golden_matrix(), expected.reshape(-1, width))


def _require_boundary(loaded: LoadedBundle, data: bytes) -> None:
    table, inputs = read_array(data), len(loaded.bundle.inputs)
    if table.ndim != 2 or table.shape[1] != inputs + (len(loaded.bundle.outputs) or 1):
        raise _unreadable(Path(loaded.bundle.boundary), f"its rows are of shape {table.shape}")
    _require_answers(loaded, np.ascontiguousarray(table[:, :inputs]), table[:, inputs:])


def _require_answers(
    loaded: LoadedBundle, rows: npt.NDArray[np.float64], expected: npt.NDArray[np.float64]
) -> None:
    found = np.asarray(loaded.model(rows), dtype=np.float64).reshape(expected.shape)
    verdict = loaded.bundle.verdict
    tolerance = max(GOLDEN_TOLERANCE, verdict.tolerance if verdict else 0.0)
    limit = tolerance * np.maximum(1.0, np.abs(expected))
    with np.errstate(invalid="ignore"):
        wrong = ~(np.abs(found - expected) <= limit)
    if not wrong.any():
        return
    row, column = (int(place[0]) for place in np.nonzero(wrong))
    raise IntegrityError(
        "bundle.golden",
        f"The model answers {float(found[row, column])!r} here where it answered "
        f"{float(expected[row, column])!r}.",
        hint="Serve it with the library version it was registered with, or retrain it.",
    )
