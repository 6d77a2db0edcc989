"""Datatypes of the Open Inference Protocol, and which of them each input takes."""

from __future__ import annotations

from typing import Final, NoReturn

import numpy as np

from everloop.core.errors import InvalidInput
from everloop.serve.protocol import Dtype

BYTES: Final = "BYTES"
NUMBERS: Final[dict[str, np.dtype[np.generic]]] = {
    "BOOL": np.dtype("?"),
    "UINT8": np.dtype("u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
# What metadata says of each type, and what is taken for it beside that.
DATATYPES: Final[dict[Dtype, str]] = {
    "float64": "FP64",
    "int64": "INT64",
    "bool": "BOOL",
    "string": BYTES,
}
FLOATS: Final = frozenset({"FP64", "FP32", "FP16"})
_SMALL: Final = frozenset({"INT8", "INT16", "INT32", "UINT8", "UINT16", "UINT32"})
TAKEN: Final[dict[Dtype, frozenset[str]]] = {
    "float64": FLOATS | _SMALL,
    "int64": _SMALL | {"INT64", "UINT64"},
    "bool": frozenset({"BOOL"}),
    "string": frozenset({BYTES}),
}
HINT: Final = "GET /v2/models/{model} shows the names, datatypes and shapes that it takes."


def wrong(problem: str) -> NoReturn:
    """Refuse a tensor.

    Raises:
        InvalidInput: ``request.invalid``.
    """
    raise InvalidInput("request.invalid", f"{problem}.", hint=HINT)
