"""What a dataset promises, and whether a table keeps it.

A contract is the ``contract`` mapping of ``everloop.yaml``. Every rule that is broken gives one
violation with its count and the first rows, so that the answer is a place to look, not a verdict.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat
from msgspec import Meta, Struct

from everloop.core.errors import InvalidInput
from everloop.data.arrow_values import plain
from everloop.data.schema import dtype_of

if TYPE_CHECKING:
    from collections.abc import Mapping

Bound: TypeAlias = int | float | str
Allowed: TypeAlias = int | float | str | bool
Rule: TypeAlias = Literal[
    "missing_column",
    "extra_column",
    "dtype",
    "nullable",
    "max_null_fraction",
    "min",
    "max",
    "allowed",
    "unique",
    "too_few_rows",
    "too_many_rows",
    "unusable_rule",
]

_EXAMPLES = 5
# What Arrow raises for a rule that makes no sense for a column; some of it is plain Python's.
_UNUSABLE = (pa.ArrowException, ValueError, TypeError, OverflowError)
_FAMILIES = {
    "integer": pat.is_integer,
    "float": pat.is_floating,
    "number": lambda t: pat.is_integer(t) or pat.is_floating(t) or pat.is_decimal(t),
    "boolean": pat.is_boolean,
    "timestamp": pat.is_timestamp,
}


class ColumnContract(
    Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    rename={"minimum": "min", "maximum": "max"},
):
    """The promises about one column; it must exist.

    Attributes:
        dtype: A type as `everloop.data.schema.dtype_of` names it, or a family: integer, float,
            number, boolean, timestamp.
        nullable: Whether nulls and NaN may occur at all.
        minimum: Written ``min``; a date or time as ISO 8601 text.
        maximum: Written ``max``.
        allowed: All values that may occur.
        unique: Whether no value may occur twice.
        max_null_fraction: The largest share of nulls and NaN.
        personal: Whether it says something about a person; no model trained on it writes what it is
            asked of this column to a prediction log.
    """

    dtype: str | None = None
    nullable: bool = True
    minimum: Bound | None = None
    maximum: Bound | None = None
    allowed: tuple[Allowed, ...] | None = None
    unique: bool = False
    max_null_fraction: Annotated[float, Meta(ge=0, le=1)] | None = None
    personal: bool = False


class RowLimits(
    Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    rename={"minimum": "min", "maximum": "max"},
):
    """How many rows there may be."""

    minimum: Annotated[int, Meta(ge=0)] | None = None
    maximum: Annotated[int, Meta(ge=0)] | None = None


class Contract(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The promises about a table."""

    columns: dict[str, ColumnContract] = {}
    rows: RowLimits = RowLimits()
    allow_extra: bool = True


class Violation(Struct, frozen=True, kw_only=True):
    """One broken rule: how many rows break it, and the first of them, counted from zero."""

    column: str | None
    rule: Rule
    count: int
    message: str
    examples: tuple[int, ...] = ()


def read_contract(mapping: Mapping[str, object]) -> Contract:
    """Read a contract from the plain mapping of a configuration file.

    Raises:
        InvalidInput: ``contract.invalid``, naming the key that is unknown or of the wrong type.
    """
    try:
        return msgspec.convert(mapping, Contract)
    except msgspec.ValidationError as error:
        raise InvalidInput(
            "contract.invalid",
            f"The data contract is wrong: {error}.",
            hint="Correct the key under `contract:`; see the reference of everloop.yaml.",
        ) from error


def check_contract(table: pa.Table, contract: Contract) -> list[Violation]:
    """Return every broken rule, table rules first, then by column; empty when all is kept."""
    found = _check_rows(table.num_rows, contract.rows)
    if not contract.allow_extra:
        extra = [name for name in table.column_names if name not in contract.columns]
        found.extend(
            _violation(name, "extra_column", 1, f"{name!r} is not in the contract")
            for name in extra
        )
    for name, promised in contract.columns.items():
        if name not in table.column_names:
            found.append(_violation(name, "missing_column", 1, f"there is no column {name!r}"))
        else:
            found.extend(_check_column(name, plain(table[name]), promised))
    return found


def _check_rows(rows: int, limits: RowLimits) -> list[Violation]:
    if limits.minimum is not None and rows < limits.minimum:
        message = f"{rows} rows are fewer than {limits.minimum}"
        return [_violation(None, "too_few_rows", limits.minimum - rows, message)]
    if limits.maximum is not None and rows > limits.maximum:
        message = f"{rows} rows are more than {limits.maximum}"
        return [_violation(None, "too_many_rows", rows - limits.maximum, message)]
    return []


def _check_column(name: str, column: pa.ChunkedArray, rule: ColumnContract) -> list[Violation]:
    found: list[Violation] = []
    if rule.dtype is not None and not _has_type(column.type, rule.dtype):
        message = f"{name!r} is {dtype_of(column.type)}, not {rule.dtype}"
        found.append(_violation(name, "dtype", len(column), message))
    found.extend(_check_nulls(name, column, rule))
    if rule.minimum is not None:
        found.extend(_check_bound(name, column, "min", rule.minimum))
    if rule.maximum is not None:
        found.extend(_check_bound(name, column, "max", rule.maximum))
    if rule.allowed is not None:
        found.extend(_check_allowed(name, column, rule.allowed))
    if rule.unique:
        found.extend(_check_unique(name, column))
    return found


def _has_type(dtype: pa.DataType, wanted: str) -> bool:
    family = _FAMILIES.get(wanted)
    return bool(family(dtype)) if family else dtype_of(dtype) == wanted


def _check_nulls(name: str, column: pa.ChunkedArray, rule: ColumnContract) -> list[Violation]:
    empty = pc.is_null(column, nan_is_null=pat.is_floating(column.type))
    count, examples = _where(empty)
    if count and not rule.nullable:
        return [_violation(name, "nullable", count, f"{name!r} has {count} nulls", examples)]
    share = count / len(column) if len(column) else 0.0
    if rule.max_null_fraction is not None and share > rule.max_null_fraction:
        message = f"{share:.1%} of {name!r} is null; at most {rule.max_null_fraction:.1%} may be"
        return [_violation(name, "max_null_fraction", count, message, examples)]
    return []


def _check_bound(
    name: str, column: pa.ChunkedArray, rule: Literal["min", "max"], bound: Bound
) -> list[Violation]:
    outside = pc.less if rule == "min" else pc.greater
    try:
        count, examples = _where(outside(column, _as_scalar(bound, column.type)))
    except _UNUSABLE as error:
        return [_unusable(name, rule, error)]
    side = "below" if rule == "min" else "above"
    message = f"{count} values of {name!r} are {side} {bound}"
    return [_violation(name, rule, count, message, examples)] if count else []


def _check_allowed(
    name: str, column: pa.ChunkedArray, allowed: tuple[Allowed, ...]
) -> list[Violation]:
    try:
        values = pa.array(allowed)
        if values.type != column.type:
            values = values.cast(column.type)
        broken = pc.and_(pc.invert(pc.is_in(column, value_set=values)), pc.is_valid(column))
        count, examples = _where(broken)
        seen = pc.unique(column.filter(broken)).slice(0, _EXAMPLES).to_pylist()
    except _UNUSABLE as error:
        return [_unusable(name, "allowed", error)]
    message = f"{count} values of {name!r} are not allowed: {', '.join(map(str, seen))}"
    return [_violation(name, "allowed", count, message, examples)] if count else []


def _check_unique(name: str, column: pa.ChunkedArray) -> list[Violation]:
    try:
        counted = pc.value_counts(column.drop_null())
        twice = counted.field("values").filter(pc.greater(counted.field("counts"), 1))
        count, examples = _where(pc.is_in(column, value_set=twice))
    except _UNUSABLE as error:
        return [_unusable(name, "unique", error)]
    message = f"{count} rows of {name!r} share a value with another row"
    return [_violation(name, "unique", count, message, examples)] if count else []


def _as_scalar(bound: Bound, dtype: pa.DataType) -> pa.Scalar:
    if not isinstance(bound, str):
        return pa.scalar(bound)
    if pat.is_timestamp(dtype) and dtype.tz is not None:
        return pa.scalar(bound).cast(pa.timestamp("us")).cast(pa.timestamp("us", dtype.tz))
    return pa.scalar(bound).cast(dtype)


def _where(broken: pa.ChunkedArray) -> tuple[int, tuple[int, ...]]:
    # A comparison with null is null: such a row breaks no rule but the one about nulls.
    rows = pc.indices_nonzero(pc.fill_null(broken, False))
    return len(rows), tuple(rows[:_EXAMPLES].to_pylist())


def _unusable(name: str, rule: str, error: Exception) -> Violation:
    message = f"the rule {rule!r} cannot be applied to {name!r}: {error}"
    return _violation(name, "unusable_rule", 1, message)


def _violation(
    column: str | None, rule: Rule, count: int, message: str, examples: tuple[int, ...] = ()
) -> Violation:
    return Violation(column=column, rule=rule, count=count, message=message, examples=examples)
