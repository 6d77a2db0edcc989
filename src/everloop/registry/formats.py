"""A model as an artifact: saved, named by its digest, opened from verified bytes."""

from __future__ import annotations

from typing import Literal, cast

from everloop.core.digest import Digest, content_digest, value_digest
from everloop.core.errors import IntegrityError, InvalidInput
from everloop.core.manifest import FileEntry
from everloop.core.ports import BlobStore
from everloop.kernel.safe_load import LoadPolicy
from everloop.registry.loaders import Predictor, find_format, load_predictor
from everloop.registry.model import ModelVersion
from everloop.registry.signature import Signature

__all__ = [
    "ModelFormat",
    "Predictor",
    "artifact_digest",
    "load_predictor",
    "open_version",
    "read_model_files",
    "require_inputs",
    "save_model",
]

ModelFormat = Literal["lightgbm", "sklearn", "xgboost", "onnx", "torch", "pyfunc"]


def save_model(model: object) -> tuple[ModelFormat, dict[str, bytes]]:
    """Return the format and the files of a trained model.

    Takes a model of LightGBM or XGBoost (of its own or its scikit-learn interface), an estimator
    of scikit-learn, or an ``onnx.ModelProto``.

    Raises:
        InvalidInput: ``model.type_unsupported``.
        MissingExtra: the library to save it is not installed.
    """
    found = find_format(model)
    return cast("ModelFormat", found.name), found.save(model)


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
    try:
        require_inputs(predictor, version.signature)
    except InvalidInput:
        predictor.close()
        raise
    return predictor


def require_inputs(predictor: Predictor, signature: Signature) -> None:
    """Let pass only a predictor that takes and answers what the signature names.

    Raises:
        InvalidInput: ``model.signature_mismatch``, or ``model.inputs_reordered`` for the model's
            own names in another order: it would answer every call, from the wrong columns.
    """
    if predictor.inputs != len(signature.inputs):
        raise InvalidInput(
            "model.signature_mismatch",
            f"The model takes {predictor.inputs} inputs, its signature names "
            f"{len(signature.inputs)}.",
            hint="Infer the signature from the columns that the model was trained on, in order.",
        )
    if len(predictor.outputs) != len(signature.outputs):
        raise InvalidInput(
            "model.signature_mismatch",
            f"The model answers {len(predictor.outputs) or 1} numbers a row, its signature names "
            f"{len(signature.outputs) or 1}.",
            hint=f"Name its outputs in the signature: {', '.join(predictor.outputs[:20])}.",
        )
    named, wanted = predictor.names, tuple(field.name for field in signature.inputs)
    if named and named != wanted and sorted(named) == sorted(wanted):
        place = next(
            n for n, (one, other) in enumerate(zip(named, wanted, strict=True)) if one != other
        )
        raise InvalidInput(
            "model.inputs_reordered",
            f"Input {place + 1} of the model is {named[place][:60]!r}, "
            f"of its signature {wanted[place][:60]!r}.",
            hint="Infer the signature from the columns in the order in which the model takes them.",
        )


def _mismatch(version: ModelVersion) -> IntegrityError:
    return IntegrityError(
        "model.artifact_mismatch",
        f"What is stored for {version.name}@{version.version} is not artifact {version.artifact}.",
        hint="Restore it from a backup and run `everloop audit verify`.",
    )
