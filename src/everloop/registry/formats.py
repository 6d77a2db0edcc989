"""A model as an artifact: saved, named by its digest, opened from verified bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, TypeVar, cast

from everloop.core.digest import Digest, content_digest, value_digest
from everloop.core.errors import IntegrityError, InvalidInput, UnsafeArtifact
from everloop.core.manifest import FileEntry
from everloop.core.ports import BlobStore
from everloop.kernel.safe_load import LoadPolicy
from everloop.registry.loaders import (
    FORMATS,
    PYFUNC,
    FloatArray,
    Predictor,
    find_format,
    load_predictor,
)
from everloop.registry.model import ModelVersion
from everloop.registry.signature import Signature

__all__ = [
    "ModelFormat",
    "Predictor",
    "artifact_digest",
    "load_predictor",
    "native_files",
    "open_version",
    "read_model_files",
    "require_inputs",
    "require_judgeable",
    "require_one_answer",
    "require_sealed",
    "require_served",
    "require_waiver",
    "save_model",
]

ModelFormat = Literal["lightgbm", "sklearn", "xgboost", "onnx", "torch", "pyfunc"]
MLFLOW: Final = "mlflow"
F = TypeVar("F")


def save_model(
    model: object, example: FloatArray | None = None
) -> tuple[ModelFormat, dict[str, bytes]]:
    """Return the format and the files of a trained model.

    Takes a model of LightGBM or XGBoost (of its own or its scikit-learn interface), an estimator
    of scikit-learn, an ``onnx.ModelProto``, a ``torch.export.ExportedProgram``, or, with a few
    example rows, a ``torch.nn.Module``.

    Raises:
        InvalidInput: ``model.type_unsupported``.
        MissingExtra: the library to save it is not installed.
    """
    found = find_format(model)
    return cast("ModelFormat", found.name), found.save(model, example)


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
    require_sealed(version)
    files = {}
    for entry in version.files:
        data = blobs.get(entry.digest)
        if content_digest(data) != entry.digest or len(data) != entry.size_bytes:
            raise _mismatch(version)
        files[entry.path] = data
    return files


def require_sealed(version: ModelVersion) -> None:
    """Let pass only a version whose files and signature are those of its artifact digest.

    Raises:
        IntegrityError: ``model.artifact_mismatch``.
    """
    if artifact_digest(version.format, version.files, version.signature) != version.artifact:
        raise _mismatch(version)


def open_version(blobs: BlobStore, version: ModelVersion, policy: LoadPolicy) -> Predictor:
    """Load a version's predictor from verified bytes.

    Raises:
        IntegrityError: ``model.artifact_mismatch``.
        UnsafeArtifact: the policy refuses it, or ``model.not_servable`` for a folder of another
            system that holds no file of a safe format.
        InvalidInput: it cannot be read, does not take the signature's inputs, or
            ``signature.unknown`` when nobody said which they are.
    """
    format_name, files = native_files(version, read_model_files(blobs, version))
    predictor = load_predictor(format_name, files, policy)
    try:
        require_inputs(predictor, version.signature)
    except InvalidInput:
        predictor.close()
        raise
    return predictor


def require_servable(version: ModelVersion) -> None:
    """Let pass only a version that can be loaded and asked here, as far as it says itself.

    Raises:
        InvalidInput: ``signature.unknown``.
        UnsafeArtifact: ``model.not_servable`` for a ``mlflow`` folder without a file of a safe
            format.
    """
    if not version.signature.inputs:
        raise InvalidInput(
            "signature.unknown",
            f"Nobody said which inputs {version.name}@{version.version} takes.",
            hint="Log it with a signature of named columns "
            "(mlflow.models.infer_signature on a data frame), then register it again.",
            context={"version": version.id},
        )
    if version.format == MLFLOW and version.servable_as is None:
        raise UnsafeArtifact(
            "model.not_servable",
            f"{version.name}@{version.version} is an MLflow folder without a file that can be "
            "loaded safely: only its own MLflow flavor reads it.",
            hint="Load it with mlflow.pyfunc where you trust it, or register the model again in a "
            "safe format: LightGBM text, XGBoost JSON or UBJ, ONNX or skops.",
            context={"version": version.id},
        )


def native_files(version: ModelVersion, files: Mapping[str, F]) -> tuple[str, dict[str, F]]:
    """Return the format in which a version is loaded, and its files by the names of that format.

    Raises:
        InvalidInput: ``signature.unknown``.
        UnsafeArtifact: ``model.not_servable``.
    """
    require_servable(version)
    if version.servable_as is None:
        return version.format, dict(files)
    native = version.servable_as
    return native, {native_name(native, version.servable_file): files[version.servable_file]}


def native_name(format_name: str, path: str) -> str:
    """Return the name that a file has in its format, for one that another system named."""
    row = FORMATS[format_name]
    names = sorted(name for layout in row.layouts for name in layout)
    return next((name for name in names if name[-5:] == path[-5:]), names[-1])


def require_waiver(format_name: str, reason: str) -> None:
    """Let a format that runs code of its own pass only with a reason, which stays on record.

    Raises:
        InvalidInput: ``model.waiver_missing``, or ``model.waiver_needless``.
    """
    if format_name == PYFUNC and not reason.strip():
        raise InvalidInput(
            "model.waiver_missing",
            "A Python function runs code of its own, so it is registered by waiver only.",
            hint="Say in waiver why no safe format does; reviewers will read it.",
        )
    if format_name != PYFUNC and reason.strip():
        raise InvalidInput(
            "model.waiver_needless",
            f"The format {format_name[:40]!r} is safe and needs no waiver.",
            hint="Leave the waiver out; gates have waivers of their own.",
        )


def require_inputs(predictor: Predictor, signature: Signature) -> None:
    """Let pass only a predictor that takes and answers what the signature names.

    Raises:
        InvalidInput: ``model.signature_mismatch``, or ``model.inputs_reordered`` for the model's
            own names in another order: it would answer every call, from the wrong columns.
    """
    if predictor.inputs != signature.width:
        raise InvalidInput(
            "model.signature_mismatch",
            f"The model takes {predictor.inputs} inputs, its signature names {signature.width}.",
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


def require_one_answer(version: ModelVersion, where: str) -> None:
    """Let pass only a version that answers one number a row, from one value for each input.

    Raises:
        InvalidInput: ``model.outputs_unsupported`` or ``model.inputs_unsupported``.
    """
    _require_plain_inputs(version, where)
    outputs = version.signature.outputs
    if outputs:
        raise InvalidInput(
            "model.outputs_unsupported",
            f"{version.name}@{version.version} answers {len(outputs)} numbers a row, and {where} "
            "takes one.",
            hint="Ask it by everloop.load_model, or register a model of one answer: a regression "
            "model, or a classifier of two classes.",
        )


def require_judgeable(version: ModelVersion) -> None:
    """Let pass only a version whose answers a gate can hold against one true answer a row.

    Those are one number, or a probability for each of several classes.

    Raises:
        InvalidInput: ``model.outputs_unsupported`` or ``model.inputs_unsupported``.
    """
    if version.signature.task == "classification":
        _require_plain_inputs(version, "the gate")
    else:
        require_one_answer(version, "the gate")


def _require_plain_inputs(version: ModelVersion, where: str) -> None:
    arrays = [field.name for field in version.signature.inputs if field.shape]
    if arrays:
        raise InvalidInput(
            "model.inputs_unsupported",
            f"{version.name}@{version.version} takes an array in {arrays[0][:60]!r}, and {where} "
            "takes one value for each input.",
            hint="Ask it by everloop.load_model, or register a model of plain columns.",
        )


def require_served(version: ModelVersion) -> None:
    """Let pass only a version with which a deployment may answer.

    A Python function answers from a locked process of its own, if a waiver let it in.

    Raises:
        UnsafeArtifact: ``artifact.not_served``, or ``model.not_servable``.
        InvalidInput: ``signature.unknown``.
    """
    require_servable(version)
    if version.format == PYFUNC and not version.waiver:
        raise UnsafeArtifact(
            "artifact.not_served",
            f"{version.name}@{version.version} runs code of its own, and nobody waived that.",
            hint="Register the model in a safe format, or the function with a waiver.",
        )


def _mismatch(version: ModelVersion) -> IntegrityError:
    return IntegrityError(
        "model.artifact_mismatch",
        f"What is stored for {version.name}@{version.version} is not artifact {version.artifact}.",
        hint="Restore it from a backup and run `everloop audit verify`.",
    )
