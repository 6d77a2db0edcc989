"""True classes as places among the classes that a model names, however a table spells them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from everloop.core.errors import InvalidInput
from everloop.registry.signature import FloatArray, Signature

if TYPE_CHECKING:
    import pyarrow as pa

UNKNOWN: Final = -1.0
"""The place of a class that the model does not know."""


def to_places(signature: Signature, table: pa.Table) -> FloatArray:
    """Return the place of each row's true class among the outputs; NaN where it is missing.

    The class 1 may stand in the table as 1, 1.0, true or "1".

    Raises:
        InvalidInput: ``signature.rows_refused``.
    """
    name = signature.output.name
    if name not in table.column_names:
        raise InvalidInput(
            "signature.rows_refused",
            f"There is no column {name[:80]!r} with the true answers.",
            hint="Give rows with all columns of the signature.",
        )
    places: dict[object, float] = {}
    for place, field in enumerate(signature.outputs):
        for spelling in (field.name, _spelled(field.name)):
            places.setdefault(spelling, float(place))
    found: dict[object, float] = {None: np.nan}
    values = table[name].to_pylist()
    for value in values:
        if value not in found:
            spelled = _spelled(value)
            known = places.get(value, places.get(spelled, UNKNOWN))
            found[value] = np.nan if spelled == "nan" else known
    return np.array([found[value] for value in values], dtype=np.float64)


def _spelled(value: object) -> str:
    """Return a class as numbers are written, where it is one."""
    if isinstance(value, bool):
        return repr(float(value))
    if value in {"True", "False"}:
        return repr(float(value == "True"))
    try:
        return repr(float(str(value)))
    except ValueError:
        return str(value)
