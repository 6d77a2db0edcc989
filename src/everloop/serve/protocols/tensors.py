"""Tensors to rows: what the Open Inference Protocol calls inputs, by any of its three ways.

A request has one tensor for each input of the model, or one of shape [rows, inputs] where all of
them are numbers. A datatype is taken where each of its values has an exact place in the input's
type; nothing is rounded in silence. Pure: no JSON, no network.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple, NoReturn

import numpy as np
import numpy.typing as npt

from everloop.core.wire import Scalar
from everloop.serve.bundle import LoadedBundle
from everloop.serve.decode import FloatArray, require_rows
from everloop.serve.protocol import InputField
from everloop.serve.protocols.datatypes import BYTES, DATATYPES, FLOATS, NUMBERS, TAKEN, wrong

EXACT: Final = 1 << 53
LARGEST: Final = (1 << 63) - 1

Array = npt.NDArray[np.generic]


class Tensor(NamedTuple):
    """One tensor of a request.

    Attributes:
        data: The elements, flat and row-major: an array of the datatype, or a list of texts for
            ``BYTES``, or a list where null stands for some of the elements.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: Array | list[Scalar]


class Rows(NamedTuple):
    """Rows as numbers, and as they were sent where numbers lose something."""

    matrix: FloatArray
    values: list[tuple[Scalar, ...]] | None


class TensorReader:
    """Reads tensors for one signature. Immutable, safe between threads."""

    def __init__(self, loaded: LoadedBundle) -> None:
        self._fields = loaded.bundle.inputs
        self._places = {field.name: place for place, field in enumerate(self._fields)}
        self._codes = {
            field.name: {value: float(code) for code, value in enumerate(field.categories or ())}
            for field in self._fields
            if field.dtype == "string"
        }
        self._is_numeric = not self._codes
        kinds = [field.dtype for field in self._fields]
        self._whole = [place for place, kind in enumerate(kinds) if kind == "int64"]
        self._flags = [place for place, kind in enumerate(kinds) if kind == "bool"]

    def read(self, tensors: Sequence[Tensor]) -> Rows:
        """Return the rows that tensors hold.

        Raises:
            InvalidInput: ``request.invalid``, naming the tensor.
            LimitExceeded: ``request.too_many_rows``.
        """
        if len(tensors) == 1 and self._is_matrix(tensors[0]):
            return self._read_matrix(tensors[0])
        return self._read_columns(tensors)

    def _is_matrix(self, tensor: Tensor) -> bool:
        """Tell whether a tensor is all of the rows; one that is named as an input is not."""
        return len(tensor.shape) == 2 and tensor.name not in self._places

    def _read_matrix(self, tensor: Tensor) -> Rows:
        rows, width = tensor.shape
        if width != len(self._fields):
            names = ", ".join(self._places)
            wrong(
                f"The tensor {tensor.name[:60]!r} has {width} columns; the model has "
                f"{len(self._fields)} inputs: {names[:300]}"
            )
        if not self._is_numeric:
            names = ", ".join(self._codes)
            wrong(f"Text has no place in a tensor of numbers; send a tensor for each of: {names}")
        require_rows(rows, "inputs")
        if tensor.datatype not in FLOATS:
            self._require_taken(tensor)
        if isinstance(tensor.data, list):
            columns = [tensor.data[place::width] for place in range(width)]
            return self._join(
                [
                    Tensor(field.name, tensor.datatype, (rows,), column)
                    for field, column in zip(self._fields, columns, strict=True)
                ]
            )
        if tensor.datatype in {"INT64", "UINT64"}:
            # Beyond 2^53 the log needs the exact numbers, column by column.
            table = tensor.data.reshape(rows, width)
            return self._join(
                [
                    Tensor(field.name, tensor.datatype, (rows,), table[:, place])
                    for place, field in enumerate(self._fields)
                ]
            )
        matrix = _widen(tensor.data).reshape(rows, width)
        self._check(matrix)
        return Rows(matrix, None)

    def _require_taken(self, tensor: Tensor) -> None:
        """Check the datatype of a matrix against every input."""
        for field in self._fields:
            if tensor.datatype not in TAKEN[field.dtype]:
                _mismatch(field, tensor.datatype)

    def _check(self, matrix: FloatArray) -> None:
        """Check numbers against the types of the inputs."""
        if not np.isfinite(matrix).all():
            for place, field in enumerate(self._fields):
                _require_finite(field, matrix[:, place])
        for place in self._whole:
            _require_whole(self._fields[place], matrix[:, place])
        for place in self._flags:
            column = matrix[:, place]
            if not ((column == 0.0) | (column == 1.0) | np.isnan(column)).all():
                wrong(f"The input {self._fields[place].name[:60]!r} is true or false: 1 or 0")

    def _read_columns(self, tensors: Sequence[Tensor]) -> Rows:
        found: dict[str, Tensor] = {}
        for tensor in tensors:
            if tensor.name not in self._places:
                known = ", ".join(self._places)
                wrong(f"There is no input {tensor.name[:60]!r}; there are: {known[:300]}")
            if tensor.name in found:
                wrong(f"The input {tensor.name[:60]!r} was sent twice")
            if len(tensor.shape) not in {1, 2} or tensor.shape[1:] not in {(), (1,)}:
                wrong(
                    f"The input {tensor.name[:60]!r} has the shape {list(tensor.shape)}; "
                    "it takes [rows, 1] or [rows]"
                )
            found[tensor.name] = tensor
        if not found:
            wrong("There are no inputs")
        rows = tensors[0].shape[0]
        odd = next((each for each in tensors if each.shape[0] != rows), None)
        if odd is not None:
            wrong(
                f"The input {odd.name[:60]!r} has {odd.shape[0]} rows, "
                f"{tensors[0].name[:60]!r} has {rows}"
            )
        require_rows(rows, "inputs")
        return self._join(
            [found.get(field.name) or self._absent(field, rows) for field in self._fields]
        )

    @staticmethod
    def _absent(field: InputField, rows: int) -> Tensor:
        if not field.nullable:
            wrong(f"The input {field.name[:60]!r} is missing")
        return Tensor(field.name, DATATYPES[field.dtype], (rows,), [None] * rows)

    def _join(self, columns: Sequence[Tensor]) -> Rows:
        """Put columns side by side; they are in the order of the signature."""
        matrix = np.empty((columns[0].shape[0], len(self._fields)))
        plain: list[list[Scalar] | None] = []
        for place, (field, tensor) in enumerate(zip(self._fields, columns, strict=True)):
            matrix[:, place], values = self._column(field, tensor)
            plain.append(values)
        if all(each is None for each in plain):
            return Rows(matrix, None)
        told = [
            _to_values(field, matrix[:, place]) if values is None else values
            for place, (field, values) in enumerate(zip(self._fields, plain, strict=True))
        ]
        return Rows(matrix, list(zip(*told, strict=True)))

    def _column(self, field: InputField, tensor: Tensor) -> tuple[FloatArray, list[Scalar] | None]:
        """Return a column as numbers, and as it was sent if numbers cannot say it."""
        taken = TAKEN[field.dtype]
        if tensor.datatype not in taken and not (
            # A whole number that may be missing comes as a float out of every data frame.
            field.dtype == "int64" and field.nullable and tensor.datatype in FLOATS
        ):
            _mismatch(field, tensor.datatype)
        data = tensor.data
        if isinstance(data, list):
            if None in data and not field.nullable:
                _require_finite(field, np.array([math.nan]))
            if field.dtype == "string":
                codes = self._codes[field.name]
                numbers = [codes.get(text, math.nan) for text in data]  # type: ignore[arg-type]
                return np.array(numbers), data
            column = np.array(data, dtype=np.float64)
            exact = data if field.dtype == "int64" and _has_large(data) else None
        else:
            column = _widen(data.reshape(-1))
            exact = None
            if tensor.datatype in {"INT64", "UINT64"} and (np.abs(column) >= EXACT).any():
                exact = data.reshape(-1).tolist()
        if not np.isfinite(column).all():
            _require_finite(field, column)
        if field.dtype == "int64":
            if tensor.datatype in FLOATS:
                _require_whole(field, column)
            if exact is not None and any(one is not None and one > LARGEST for one in exact):  # type: ignore[operator]
                wrong(f"The input {field.name[:60]!r} takes whole numbers up to 2^63 - 1")
        return column, exact


def _widen(data: Array) -> FloatArray:
    """Return numbers as float64, at an address that a runtime can read."""
    if data.dtype == np.float64 and data.flags.aligned and data.flags.c_contiguous:
        return data  # type: ignore[return-value]
    return data.astype(np.float64)


def _has_large(data: Sequence[Scalar]) -> bool:
    return any(isinstance(one, int) and abs(one) >= EXACT for one in data)


def _to_values(field: InputField, column: FloatArray) -> list[Scalar]:
    make = {"int64": int, "bool": bool}.get(field.dtype, float)
    return [None if math.isnan(number) else make(number) for number in column.tolist()]


def _require_finite(field: InputField, column: FloatArray) -> None:
    if np.isinf(column).any():
        wrong(f"The input {field.name[:60]!r} takes no infinity")
    if not field.nullable and np.isnan(column).any():
        wrong(f"The input {field.name[:60]!r} takes no null and no NaN")


def _require_whole(field: InputField, column: FloatArray) -> None:
    with np.errstate(invalid="ignore"):
        is_whole = (np.floor(column) == column) | np.isnan(column)
    if not is_whole.all() or (np.abs(column) >= 2.0**63).any():
        wrong(f"The input {field.name[:60]!r} takes whole numbers up to 2^63 - 1")


def size_of(shape: Sequence[int]) -> int:
    """Return how many elements a shape has."""
    return math.prod(shape)


def require_size(tensor_name: str, shape: Sequence[int], found: int) -> None:
    """Let pass a tensor whose shape and data agree.

    Raises:
        InvalidInput: ``request.invalid``.
    """
    if size_of(shape) != found:
        wrong(
            f"The tensor {tensor_name[:60]!r} has the shape {list(shape)[:8]}, "
            f"which is {size_of(shape)} elements, and data of {found}"
        )


def require_shape(tensor_name: str, datatype: str, shape: Sequence[int]) -> None:
    """Let pass a datatype and a shape that exist.

    Raises:
        InvalidInput: ``request.invalid``.
    """
    if datatype not in NUMBERS and datatype != BYTES:
        known = ", ".join((*NUMBERS, BYTES))
        wrong(
            f"The tensor {tensor_name[:60]!r} has the datatype {datatype[:20]!r}; "
            f"there are: {known}"
        )
    if not shape or len(shape) > 2 or any(one < 0 for one in shape):
        wrong(
            f"The tensor {tensor_name[:60]!r} has the shape {list(shape)[:8]}; "
            "it takes [rows, columns] or [rows], with a number for each"
        )


def _mismatch(field: InputField, datatype: str) -> NoReturn:
    taken = sorted(TAKEN[field.dtype])
    wrong(f"The input {field.name[:60]!r} takes {', '.join(taken)}, not {datatype}")
