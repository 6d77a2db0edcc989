"""Sealed bundles: a model version as files that the serving process can verify by itself.

A bundle is trusted when its description is signed by the key named in the routes, every file has
the digest named there, and the model, once loaded, repeats its golden answers on this machine.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np

from everloop.core.canonical import canonical_json
from everloop.core.digest import Digest, content_digest
from everloop.core.errors import IntegrityError
from everloop.core.ids import Id
from everloop.core.ports import Signer
from everloop.core.wire import Scalar
from everloop.kernel.signing import is_signed
from everloop.serve.decode import RowDecoder
from everloop.serve.protocol import InputField
from everloop.serve.runtime import Model, open_model

DESCRIPTION = "bundle.json"
SIGNATURE = "bundle.sig"
GOLDEN_TOLERANCE = 1e-9  # relative; other processors may round the last bits of a sum differently


class GoldenAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Inputs and what the version answered to them when it was registered."""

    inputs: dict[str, Scalar]
    expected: float


class Bundle(msgspec.Struct, frozen=True, kw_only=True):
    """The description of a bundle; the signature covers its canonical JSON.

    Attributes:
        artifact: Digest of the model version's artifact, to which gates and approvals are bound.
        output_minimum: Least output that counts as valid; None for no bound. The margin for
            values that training never saw is already in it.
        trusted_types: Types a scikit-learn model may hold, by the policy of the server that
            sealed this.
        files: Digest by file name of the model's files.
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


class LoadedBundle:
    """A verified bundle with its model in memory. Read-only, safe between threads."""

    def __init__(self, bundle: Bundle, model: Model) -> None:
        self.bundle = bundle
        self.model = model
        self.rows = RowDecoder(bundle.inputs)

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
    _require_files(bundle, files)
    text = canonical_json(bundle)
    draft = folder.with_name(f".{folder.name}.{os.getpid()}")
    draft.mkdir(parents=True, exist_ok=True)
    for name, data in {**files, DESCRIPTION: text}.items():
        _write_durably(draft / name, data)
    _write_durably(draft / SIGNATURE, signer.sign(text).hex().encode())
    try:
        draft.rename(folder)
    except OSError:  # another process was first with the same, sealed content
        if not folder.exists():
            raise


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
    bundle = _read_description(folder, public_key)
    try:
        files = {name: _confined(folder, name).read_bytes() for name in bundle.files}
    except OSError as error:
        raise _unreadable(folder, str(error)) from error
    _require_files(bundle, files)
    model = open_model(bundle.format, files, len(bundle.inputs), trusted_types=bundle.trusted_types)
    loaded = LoadedBundle(bundle, model)
    _require_golden(loaded)
    return loaded


def _read_description(folder: Path, public_key: bytes) -> Bundle:
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


def _require_files(bundle: Bundle, files: Mapping[str, bytes]) -> None:
    found = {name: content_digest(data) for name, data in files.items()}
    if found == bundle.files:
        return
    names = {*found, *bundle.files}
    wrong = sorted(name for name in names if found.get(name) != bundle.files.get(name))
    raise IntegrityError(
        "bundle.file_changed",
        f"Files of the bundle are not what was sealed: {', '.join(wrong)[:200]}.",
        hint="Write the bundle again from the registry; find out who changed it.",
    )


def _require_golden(loaded: LoadedBundle) -> None:
    golden = loaded.bundle.golden
    if not golden:
        return
    rows = [loaded.rows.from_values(answer.inputs) for answer in golden]
    outputs = np.asarray(loaded.model(loaded.rows.to_matrix(rows)), dtype=np.float64)
    for answer, output in zip(golden, outputs.ravel().tolist(), strict=True):
        if not math.isclose(
            answer.expected, output, rel_tol=GOLDEN_TOLERANCE, abs_tol=GOLDEN_TOLERANCE
        ):
            raise IntegrityError(
                "bundle.golden",
                f"The model answers {output!r} here where it answered {answer.expected!r}.",
                hint="Serve it with the library version it was registered with, or retrain it.",
            )
