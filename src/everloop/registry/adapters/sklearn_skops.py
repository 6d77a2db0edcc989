"""Saves and loads scikit-learn estimators as skops archives, never as pickles.

A skops archive names the types to rebuild. Which of them may be is the server's policy: a type that
neither skops nor the policy trusts stops the load before anything runs.
"""

from __future__ import annotations

import io
import json
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final, Protocol, cast

import numpy as np
import numpy.typing as npt

from everloop.core.errors import EverloopError, InvalidInput, MissingExtra, UnsafeArtifact
from everloop.registry.adapters.refusals import (
    FloatArray,
    OneAnswer,
    ask_one,
    no_answers,
    predict_failed,
    require_rows,
    require_size,
    too_large,
    unreadable,
    unsupported,
)

_MOST_MEMBERS: Final = 10_000
_MOST_UNPACKED_BYTES: Final = 1 << 30
_MOST_INPUTS: Final = 1_000_000
# What zipfile, NumPy's reader, skops and an estimator of damaged parts are known to raise.
_BROKEN: Final = (
    ValueError, TypeError, LookupError, AttributeError, ImportError, OSError, RuntimeError,
    ArithmeticError, AssertionError, EOFError, MemoryError, SyntaxError, tokenize.TokenError,
    zipfile.BadZipFile, zlib.error,
)  # fmt: skip


# skops leaves it to its caller, but reads a datatype from an empty array, which holds no objects.
_SAFE_TYPES: Final = frozenset({"numpy.dtype"})


class _Estimator(Protocol):
    n_features_in_: int

    def predict(self, rows: FloatArray) -> FloatArray: ...


class _Classifier(_Estimator, Protocol):
    classes_: npt.NDArray[np.generic]

    def predict_proba(self, rows: FloatArray) -> FloatArray: ...


class SkopsPredictor:
    """A scikit-learn estimator that answers numbers.

    A classifier of the classes 0 and 1 answers the probability of 1, any other one the probability
    of each class.

    Attributes:
        inputs: How many columns a row has.
        names: Its inputs as it names them; empty when it was trained on a plain matrix.
        outputs: Names of the columns of an answer; empty where it is one number a row.
        is_classifier: Whether its answers are probabilities of classes.
    """

    def __init__(self, archive: bytes, trusted_types: tuple[str, ...] = ()) -> None:
        """Load the estimator; the trusted types are those the server allows beyond skops' own.

        Raises:
            UnsafeArtifact: ``artifact.types_refused``.
            InvalidInput: ``model.unreadable`` or ``model.outputs_unsupported``.
            LimitExceeded: ``model.too_large``.
            MissingExtra: scikit-learn or skops is not installed.
        """
        with _readable():
            self._estimator = _load(archive, trusted_types)
            self.inputs = _count_inputs(self._estimator)
            named = getattr(self._estimator, "feature_names_in_", ())
            self.names = tuple(str(name) for name in named)
            classes = getattr(self._estimator, "classes_", None)
            self.is_classifier = classes is not None
            self._is_binary = self.is_classifier and _is_binary(_class_names(classes))
            self.outputs = () if self._is_binary else self._find_outputs(classes)

    def predict(self, rows: FloatArray) -> FloatArray:
        """Return one number, or one row of numbers, for each row of a 2-D array.

        Raises:
            InvalidInput: ``model.wrong_shape`` or ``model.predict_failed``.
        """
        matrix = require_rows(rows, self.inputs)
        if not len(matrix):
            return no_answers(self.outputs)
        wanted = (len(matrix), len(self.outputs)) if self.outputs else (len(matrix),)
        return self._ask(matrix).reshape(wanted)

    def _ask(self, matrix: FloatArray) -> FloatArray:
        try:
            with warnings.catch_warnings():
                # Names of columns were matched with the signature's; a matrix has none to show.
                warnings.filterwarnings("ignore", message="X does not have valid feature names")
                if self.is_classifier:
                    shares = cast("_Classifier", self._estimator).predict_proba(matrix)
                    answers = shares[:, 1] if self._is_binary else shares
                else:
                    answers = self._estimator.predict(matrix)
            return np.asarray(answers, dtype=np.float64)
        except _BROKEN as error:
            raise predict_failed("scikit-learn", str(error)) from error

    def _find_outputs(self, classes: object) -> tuple[str, ...]:
        if classes is not None:
            names = _class_names(classes)
            if not hasattr(self._estimator, "predict_proba") or isinstance(classes, list):
                raise unsupported(
                    f"The classifier knows the classes {', '.join(names[:3])}, and gives no "
                    "probabilities.",
                    "Train one classifier that gives probabilities.",
                )
            return names
        try:
            answer = self._ask(np.zeros((1, self.inputs)))
        except InvalidInput:
            return ()  # it takes no such row; what it makes of real ones is seen then
        return (
            tuple(map(str, range(answer.shape[1])))
            if answer.ndim == 2 and answer.shape[1] > 1
            else ()
        )

    def predict_one(self, values: Sequence[float]) -> OneAnswer:
        """Return the answer to one row, by way of a matrix of one row.

        Raises:
            InvalidInput: as `predict`.
        """
        return ask_one(self.predict, values)

    @property
    def estimator(self) -> object:
        """The estimator itself, for those who convert it."""
        return self._estimator

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


def _load(archive: bytes, trusted_types: tuple[str, ...]) -> _Estimator:
    try:
        import skops.io as skops_io
        from sklearn.base import BaseEstimator
        from skops.io.exceptions import UntrustedTypesFoundException
    except ImportError as error:
        raise _missing() from error
    _check_archive(archive)
    try:
        found = set(skops_io.get_untrusted_types(data=archive))
        refused = sorted(found - _SAFE_TYPES - set(trusted_types))
        if refused:
            raise _refused(refused)
        loaded = skops_io.loads(archive, trusted=sorted(found))
    except UntrustedTypesFoundException as error:
        raise _refused([str(error)[:200]]) from error
    if not isinstance(loaded, BaseEstimator) or not hasattr(loaded, "n_features_in_"):
        raise _unreadable(f"it holds a {type(loaded).__name__}, not a fitted estimator")
    return cast("_Estimator", loaded)


@contextmanager
def _readable() -> Iterator[None]:
    """Refuse an archive of which anything cannot be read."""
    try:
        yield
    except EverloopError:
        raise
    except _BROKEN as error:
        raise _unreadable(str(error)[:300] or type(error).__name__) from error


def _count_inputs(estimator: _Estimator) -> int:
    count = int(estimator.n_features_in_)
    if not 1 <= count <= _MOST_INPUTS:
        raise _unreadable(f"it takes {str(count)[:40]} inputs")
    return count


def _check_archive(archive: bytes) -> None:
    require_size(archive, _MOST_UNPACKED_BYTES)
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        members = opened.infolist()
    unpacked = sum(member.file_size for member in members)
    if len(members) > _MOST_MEMBERS or unpacked > _MOST_UNPACKED_BYTES:
        raise too_large(
            f"The archive unpacks to {len(members)} files and {unpacked >> 20} MiB.",
            _MOST_UNPACKED_BYTES,
        )
    names = [member.filename for member in members]
    if len(set(names)) != len(names) or "schema.json" not in names:
        raise _unreadable("it is not a skops archive")


def _class_names(classes: object) -> tuple[str, ...]:
    return tuple(str(value) for value in np.asarray(classes, dtype=object).ravel())


def _is_binary(names: tuple[str, ...]) -> bool:
    """Say whether they are 0 and 1, of which the probability of 1 says all."""
    return names in {("0", "1"), ("0.0", "1.0"), ("False", "True")}


def _refused(types: list[str]) -> UnsafeArtifact:
    return UnsafeArtifact(
        "artifact.types_refused",
        f"The model would rebuild types that this server does not trust: {', '.join(types[:5])}.",
        hint="Linear models, support vectors and naive Bayes pass, trees from LightGBM too; "
        "compiled trees, neighbours, networks and classes of your own can't be checked.",
        context={"types": list(types[:20])},
    )


def _unreadable(why: str) -> InvalidInput:
    return unreadable("scikit-learn", why)


def _missing() -> MissingExtra:
    return MissingExtra(
        "extra.missing",
        "scikit-learn or skops is not installed.",
        hint='Install them with: pip install "everloop[sklearn]"',
    )
