"""Saves and loads scikit-learn estimators as skops archives, never as pickles.

A skops archive names the types to rebuild. Which of them may be is the server's policy: a type that
neither skops nor the policy trusts stops the load before anything runs.
"""

from __future__ import annotations

import io
import json
import zipfile
from typing import Final, Protocol, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from everloop.core.errors import InvalidInput, LimitExceeded, MissingExtra, UnsafeArtifact
from everloop.kernel.safe_load import LoadPolicy

FloatArray: TypeAlias = npt.NDArray[np.float64]

_MOST_MEMBERS: Final = 10_000
_MOST_UNPACKED_BYTES: Final = 1 << 30


class _Estimator(Protocol):
    n_features_in_: int

    def predict(self, rows: FloatArray) -> FloatArray: ...


class _Classifier(_Estimator, Protocol):
    classes_: npt.NDArray[np.generic]

    def predict_proba(self, rows: FloatArray) -> FloatArray: ...


class SkopsPredictor:
    """A scikit-learn estimator that answers one number a row.

    A classifier of the classes 0 and 1 answers the probability of 1.

    Attributes:
        inputs: How many columns a row has.
    """

    def __init__(self, archive: bytes, policy: LoadPolicy) -> None:
        """Load the estimator.

        Raises:
            UnsafeArtifact: ``artifact.types_refused``.
            InvalidInput: ``model.unreadable`` or ``model.outputs_unsupported``.
            LimitExceeded: ``model.too_large``.
            MissingExtra: scikit-learn or skops is not installed.
        """
        self._estimator = _load(archive, policy)
        self._classes = _positive_class(self._estimator)
        self.inputs = int(self._estimator.n_features_in_)

    def predict(self, rows: FloatArray) -> FloatArray:
        """Return one number for each row of a 2-D array.

        Raises:
            InvalidInput: ``model.wrong_shape`` or ``model.predict_failed``.
        """
        if rows.ndim != 2 or rows.shape[1] != self.inputs:
            raise InvalidInput(
                "model.wrong_shape",
                f"The model takes rows of {self.inputs} numbers, not an array of {rows.shape}.",
                hint="Give the inputs of the signature, all of them, in its order.",
            )
        if not len(rows):
            return np.empty(0, dtype=np.float64)
        try:
            if self._classes:
                answers = cast("_Classifier", self._estimator).predict_proba(rows)[:, 1]
            else:
                answers = self._estimator.predict(rows)
            return np.asarray(answers, dtype=np.float64).reshape(len(rows))
        except (ValueError, TypeError, AttributeError) as error:
            raise InvalidInput(
                "model.predict_failed",
                f"The estimator cannot predict these rows: {str(error)[:200]}",
                hint="Train it on a plain matrix of numbers, in the order of the signature.",
            ) from error

    def close(self) -> None:
        """Do nothing: the memory is freed with the object."""


def save_estimator(estimator: object) -> dict[str, bytes]:
    """Return the files of an estimator.

    Raises:
        MissingExtra: skops is not installed.
    """
    try:
        import skops.io as skops_io
    except ImportError as error:
        raise _missing() from error
    return {"model.skops": _normalise(bytes(skops_io.dumps(estimator)))}


def _normalise(archive: bytes) -> bytes:
    """Return the archive without the memory addresses and times that skops puts into it.

    Objects are numbered as they are met, so that one estimator saved twice is one artifact.
    """
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        members = {name: opened.read(name) for name in opened.namelist()}
    numbers: dict[int, int] = {}
    schema = _renumber(json.loads(members.pop("schema.json")), numbers)
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, data in sorted((_rename(name, numbers), data) for name, data in members.items()):
            packed.writestr(zipfile.ZipInfo(name), data)
        packed.writestr(zipfile.ZipInfo("schema.json"), json.dumps(schema))
    return sink.getvalue()


def _renumber(node: object, numbers: dict[int, int]) -> object:
    if isinstance(node, list):
        return [_renumber(item, numbers) for item in node]
    if not isinstance(node, dict):
        return node
    address = node.get("__id__")
    if isinstance(address, int):
        numbers.setdefault(address, len(numbers) + 1)
    plain = {name: _renumber(item, numbers) for name, item in node.items()}
    if isinstance(address, int):
        plain["__id__"] = numbers[address]
    file = plain.get("file")
    if isinstance(file, str):
        plain["file"] = _rename(file, numbers)
    return plain


def _rename(name: str, numbers: dict[int, int]) -> str:
    stem, dot, ending = name.partition(".")
    number = numbers.get(int(stem)) if stem.isascii() and stem.isdigit() else None
    return name if number is None else f"{number:06d}{dot}{ending}"


def _load(archive: bytes, policy: LoadPolicy) -> _Estimator:
    try:
        import skops.io as skops_io
        from sklearn.base import BaseEstimator
        from skops.io.exceptions import UntrustedTypesFoundException
    except ImportError as error:
        raise _missing() from error
    _check_archive(archive)
    try:
        found = set(skops_io.get_untrusted_types(data=archive))
        refused = sorted(found - set(policy.trusted_types))
        if refused:
            raise _refused(refused)
        loaded = skops_io.loads(archive, trusted=sorted(found))
    except UntrustedTypesFoundException as error:
        raise _refused([str(error)[:200]]) from error
    except (ValueError, TypeError, KeyError, AttributeError, ImportError, OSError) as error:
        if isinstance(error, UnsafeArtifact):
            raise
        raise _unreadable(str(error) or type(error).__name__) from error
    if not isinstance(loaded, BaseEstimator) or not hasattr(loaded, "n_features_in_"):
        raise _unreadable(f"it holds a {type(loaded).__name__}, not a fitted estimator")
    return cast("_Estimator", loaded)


def _check_archive(archive: bytes) -> None:
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as opened:
            members = opened.infolist()
    except (zipfile.BadZipFile, ValueError, OSError) as error:
        raise _unreadable(str(error)) from error
    unpacked = sum(member.file_size for member in members)
    if len(members) > _MOST_MEMBERS or unpacked > _MOST_UNPACKED_BYTES:
        raise LimitExceeded(
            "model.too_large",
            f"The archive unpacks to {len(members)} files and {unpacked >> 20} MiB.",
            hint=f"Keep models below {_MOST_UNPACKED_BYTES >> 20} MiB.",
        )
    names = [member.filename for member in members]
    if len(set(names)) != len(names) or "schema.json" not in names:
        raise _unreadable("it is not a skops archive")


def _positive_class(estimator: _Estimator) -> bool:
    """Say whether it is a classifier of 0 and 1; any other classifier is refused."""
    classes = getattr(estimator, "classes_", None)
    if classes is None:
        return False
    known = [str(value) for value in np.asarray(classes).ravel()[:3]]
    binary = known in (["0", "1"], ["0.0", "1.0"], ["False", "True"])
    if not binary or not hasattr(estimator, "predict_proba"):
        raise InvalidInput(
            "model.outputs_unsupported",
            f"The classifier knows the classes {', '.join(known)}.",
            hint="Train a classifier of the classes 0 and 1 that gives probabilities.",
        )
    return True


def _refused(types: list[str]) -> UnsafeArtifact:
    return UnsafeArtifact(
        "artifact.types_refused",
        f"The model would rebuild types that this server does not trust: {', '.join(types[:5])}.",
        hint="Linear models, support vectors and naive Bayes pass, trees from LightGBM too; "
        "compiled trees, neighbours, networks and classes of your own can't be checked.",
        context={"types": list(types[:20])},
    )


def _unreadable(why: str) -> InvalidInput:
    return InvalidInput(
        "model.unreadable",
        f"The scikit-learn model cannot be read: {why[:200]}.",
        hint="Save the fitted estimator again with everloop's save_model.",
    )


def _missing() -> MissingExtra:
    return MissingExtra(
        "extra.missing",
        "scikit-learn or skops is not installed.",
        hint='Install them with: pip install "everloop[sklearn]"',
    )
