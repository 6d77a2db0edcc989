"""The safe model formats: how an object becomes files, and files become a predictor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from everloop.core.digest import Digest, content_digest, value_digest
from everloop.core.errors import IntegrityError, InvalidInput
from everloop.core.manifest import FileEntry
from everloop.core.ports import BlobStore
from everloop.kernel.safe_load import LoadPolicy, require_format
from everloop.registry.model import ModelVersion
from everloop.registry.signature import Signature

FloatArray: TypeAlias = npt.NDArray[np.float64]
ModelFormat = Literal["lightgbm", "sklearn"]
_FILE: dict[str, str] = {"lightgbm": "model.txt", "sklearn": "model.skops"}


class Predictor(Protocol):
    """A loaded model.

    Contract: thread-safe; rows are a 2-D float64 array with the inputs in the signature's order
    and NaN for null; the answer is one float64 a row.
    """

    inputs: int

    def predict(self, rows: FloatArray) -> FloatArray:
        """Return one number for each row."""
        ...

    def close(self) -> None:
        """Free what it holds; idempotent."""
        ...


def save_model(model: object) -> tuple[ModelFormat, dict[str, bytes]]:
    """Return the format and the files of a trained model.

    Takes a LightGBM Booster, LGBMRegressor or LGBMClassifier, or a scikit-learn estimator.

    Raises:
        InvalidInput: ``model.type_unsupported``.
        MissingExtra: the library to save it is not installed.
    """
    booster = getattr(model, "booster_", model)
    if type(booster).__module__.partition(".")[0] == "lightgbm" and hasattr(
        booster, "model_to_string"
    ):
        best = int(getattr(booster, "best_iteration", 0) or 0)
        text: str = booster.model_to_string(num_iteration=best if best > 0 else -1)
        return "lightgbm", {_FILE["lightgbm"]: text.encode()}
    if hasattr(model, "get_params") and hasattr(model, "predict"):
        from everloop.registry.adapters.sklearn_skops import save_estimator

        return "sklearn", save_estimator(model)
    raise InvalidInput(
        "model.type_unsupported",
        f"A {type(model).__name__} has no safe format here.",
        hint="Give a LightGBM model or a scikit-learn estimator.",
    )


def load_predictor(format_name: str, files: Mapping[str, bytes], policy: LoadPolicy) -> Predictor:
    """Load a predictor from the files of a model, if the policy allows the format.

    Raises:
        UnsafeArtifact: the format or a type in the files is not trusted.
        InvalidInput: ``model.files_wrong`` or ``model.unreadable``.
        MissingExtra: the library is not installed.
    """
    require_format(policy, format_name)
    name = _FILE.get(format_name)
    if name is None or list(files) != [name]:
        raise InvalidInput(
            "model.files_wrong",
            f"A model of format {format_name[:40]!r} is one file, {name!r}.",
            hint="Save the model with everloop's save_model.",
        )
    if format_name == "lightgbm":
        from everloop.registry.adapters.lightgbm_native import NativeBooster

        return NativeBooster(files[name])
    from everloop.registry.adapters.sklearn_skops import SkopsPredictor

    return SkopsPredictor(files[name], policy)


def artifact_digest(format_name: str, files: tuple[FileEntry, ...], signature: Signature) -> Digest:
    """Return the digest that names a model: its format, files and signature together."""
    ordered = sorted(files, key=lambda entry: entry.path)
    return value_digest("artifact", [format_name, ordered, signature])


def read_model_files(blobs: BlobStore, version: ModelVersion) -> dict[str, bytes]:
    """Return the files of a version, verified against its artifact digest.

    Raises:
        IntegrityError: ``model.artifact_mismatch``.
        NotFound: ``blob.not_found``.
    """
    if artifact_digest(version.format, version.files, version.signature) != version.artifact:
        raise _mismatch(version)
    files = {}
    for entry in version.files:
        data = blobs.get(entry.digest)
        if content_digest(data) != entry.digest or len(data) != entry.size_bytes:
            raise _mismatch(version)
        files[entry.path] = data
    return files


def open_version(blobs: BlobStore, version: ModelVersion, policy: LoadPolicy) -> Predictor:
    """Load a version's predictor from verified bytes.

    Raises:
        IntegrityError: ``model.artifact_mismatch``.
        UnsafeArtifact: the policy refuses it.
        InvalidInput: it cannot be read, or does not take the signature's inputs.
    """
    predictor = load_predictor(version.format, read_model_files(blobs, version), policy)
    require_inputs(predictor, version.signature)
    return predictor


def require_inputs(predictor: Predictor, signature: Signature) -> None:
    """Let pass only a predictor that takes as many inputs as the signature names.

    Raises:
        InvalidInput: ``model.signature_mismatch``.
    """
    if predictor.inputs != len(signature.inputs):
        raise InvalidInput(
            "model.signature_mismatch",
            f"The model takes {predictor.inputs} inputs, its signature names "
            f"{len(signature.inputs)}.",
            hint="Infer the signature from the columns that the model was trained on, in order.",
        )


def require_order(format_name: str, files: Mapping[str, bytes], signature: Signature) -> None:
    """Refuse a signature that has the model's own input names in another order.

    Such a model would answer every call, from the wrong columns.

    Raises:
        InvalidInput: ``model.inputs_reordered``.
    """
    named = _names_in(files[_FILE[format_name]]) if format_name == "lightgbm" else []
    wanted = [field.name for field in signature.inputs]
    if named != wanted and sorted(named) == sorted(wanted):
        place = next(
            n for n, (one, other) in enumerate(zip(named, wanted, strict=True)) if one != other
        )
        raise InvalidInput(
            "model.inputs_reordered",
            f"Input {place + 1} of the model is {named[place][:60]!r}, "
            f"of its signature {wanted[place][:60]!r}.",
            hint="Infer the signature from the columns in the order in which the model takes them.",
        )


def _names_in(model: bytes) -> list[str]:
    start = model.find(b"\nfeature_names=")
    if start < 0:
        return []
    line = model[start + len(b"\nfeature_names=") :].partition(b"\n")[0]
    return line.decode("utf-8", "replace").split(" ")


def _mismatch(version: ModelVersion) -> IntegrityError:
    return IntegrityError(
        "model.artifact_mismatch",
        f"What is stored for {version.name}@{version.version} is not artifact {version.artifact}.",
        hint="Restore it from a backup and run `everloop audit verify`.",
    )
