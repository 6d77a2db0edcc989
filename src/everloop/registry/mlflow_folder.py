"""Reads what a folder with an ``MLmodel`` file says of itself, without loading a model.

The file and the folder are somebody else's: YAML is read as plain values only, and everything that
is not understood makes the signature unknown or the model not servable, never an error. The form is
described at https://mlflow.org/docs/latest/ml/model/ (MLmodel file, signature, flavors).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import yaml

from everloop.core.errors import EverloopError
from everloop.registry.adapters.lightgbm_text import LARGEST_MODEL_BYTES, rewrite_model_text
from everloop.registry.signature import Field, FieldType, Signature, Task, check_signature

MLMODEL: Final = "MLmodel"
LARGEST_MLMODEL_BYTES: Final = 1 << 20
DEEPEST: Final = 32
MOST_TOKENS: Final = 20_000
LONGEST_NUMBER: Final = 400
UNNAMED_OUTPUT: Final = "prediction"
_TYPES: Final[dict[str, FieldType]] = {
    "double": "float64",
    "float": "float64",
    "long": "int64",
    "integer": "int64",
    "boolean": "bool",
    "string": "string",
}
_CLASS_DTYPES: Final = ("int", "uint", "bool", "str", "object", "<U", "long", "integer", "string")
_CLASS_OBJECTIVES: Final = ("binary", "cross_entropy")
_NATIVE: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "xgboost": ("data", (".ubj", ".json", ".xgb")),
    "sklearn": ("pickled_model", (".skops",)),
    "onnx": ("data", (".onnx",)),
}
_LOADER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_OPENING: Final = (
    yaml.BlockMappingStartToken,
    yaml.BlockSequenceStartToken,
    yaml.FlowMappingStartToken,
    yaml.FlowSequenceStartToken,
)
_CLOSING: Final = (yaml.BlockEndToken, yaml.FlowMappingEndToken, yaml.FlowSequenceEndToken)
_RANGE: Final = re.compile(r"\[([^:\]]+):([^:\]]+)\]")
Read = Callable[[str], bytes]


class Told(NamedTuple):
    """What a folder says of itself.

    Attributes:
        signature: Without inputs when it does not say them in a form that is understood here.
        servable_as: The format of a native file that may be loaded here; None without one.
        file: Path of that file; empty without one.
        flavors: Names of the flavors, such as ``sklearn``.
    """

    signature: Signature
    servable_as: str | None = None
    file: str = ""
    flavors: tuple[str, ...] = ()


def read_folder(sizes: Mapping[str, int], read: Read, target: str | None = None) -> Told:
    """Return what a folder says of itself.

    Args:
        sizes: Size in bytes of each file, by path.
        read: Returns the bytes of a file of the folder.
        target: Name of the column that the model predicts, where it is known better.
    """
    unknown = unknown_signature(target)
    if not 0 < sizes.get(MLMODEL, 0) <= LARGEST_MLMODEL_BYTES:
        return Told(unknown)
    document = _load(read(MLMODEL))
    flavors = document.get("flavors")
    flavors = flavors if isinstance(flavors, dict) else {}
    names = tuple(sorted(str(name)[:60] for name in flavors))[:20]
    columns, output = _schemas(document.get("signature"))
    name = target or output.name or UNNAMED_OUTPUT
    found = _lightgbm(flavors, sizes, read, columns, name)
    if found is None:
        found = _others(flavors, sizes, columns, name, output)
    signature, servable_as, file = found
    return Told(signature or unknown, servable_as if signature else None, file, names)


def unknown_signature(target: str | None = None) -> Signature:
    """Return the signature of a model whose inputs nobody told; it has none."""
    output = Field(name=target or UNNAMED_OUTPUT, dtype="float64")
    return Signature(inputs=(), output=output, task="regression")


class _Column(NamedTuple):
    name: str
    dtype: FieldType


class _Output(NamedTuple):
    name: str = ""
    is_class: bool = False


_Found = tuple[Signature | None, str | None, str]


def _load(data: bytes) -> dict[str, Any]:
    try:
        text = data.decode("utf-8")
        if not _is_plain(text):
            return {}
        document = yaml.load(text, Loader=_LOADER)  # noqa: S506 -- it is one of the safe loaders
    except (yaml.YAMLError, ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _is_plain(text: str) -> bool:
    """Tell whether a text has no tags, no anchors (which make small files enormous), no depth.

    Nor numbers of many digits. MLflow writes none of them.
    """
    depth = 0
    for count, token in enumerate(yaml.scan(text, Loader=_LOADER)):
        if count > MOST_TOKENS:
            return False
        if isinstance(token, yaml.AliasToken | yaml.AnchorToken | yaml.TagToken):
            return False
        if isinstance(token, yaml.ScalarToken) and token.plain and _is_long_number(token.value):
            return False
        depth += isinstance(token, _OPENING) - isinstance(token, _CLOSING)
        if depth > DEEPEST:
            return False
    return True


def _is_long_number(text: str) -> bool:
    # YAML reads 1:30:00 to the base of 60, in a time that grows with the square of its length.
    return len(text) > LONGEST_NUMBER and text[0] in "+-.0123456789"


def _schemas(signature: object) -> tuple[list[_Column] | None, _Output]:
    """Return the columns that it takes, None where they are not understood, and its output."""
    if not isinstance(signature, dict):
        return None, _Output()
    inputs, outputs = _parse(signature.get("inputs")), _parse(signature.get("outputs"))
    return _columns(inputs), _output(outputs)


def _parse(text: object) -> list[dict[str, Any]]:
    try:
        found = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        return []
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        return []
    return found


def _columns(specs: list[dict[str, Any]]) -> list[_Column] | None:
    columns = []
    for spec in specs:
        name, dtype = spec.get("name"), _TYPES.get(str(spec.get("type")))
        if not isinstance(name, str) or not 1 <= len(name) <= 200 or dtype is None:
            return None
        columns.append(_Column(name, dtype))
    return columns or None


def _output(specs: list[dict[str, Any]]) -> _Output:
    if len(specs) != 1:
        return _Output()
    spec = specs[0]
    tensor = spec.get("tensor-spec")
    dtype = str(tensor.get("dtype")) if isinstance(tensor, dict) else str(spec.get("type"))
    name = spec.get("name")
    is_named = isinstance(name, str) and 1 <= len(name) <= 200
    return _Output(str(name) if is_named else "", dtype.startswith(_CLASS_DTYPES))


def _lightgbm(
    flavors: Mapping[str, Any],
    sizes: Mapping[str, int],
    read: Read,
    columns: list[_Column] | None,
    target: str,
) -> _Found | None:
    """Return what a LightGBM model's own text says, which is more than MLflow knows of it."""
    flavor = flavors.get("lightgbm")
    path = str(flavor.get("data")) if isinstance(flavor, dict) else ""
    if not path.endswith((".lgb", ".txt")) or not 0 < sizes.get(path, 0) <= LARGEST_MODEL_BYTES:
        return None
    data = read(path)
    try:
        rewrite_model_text(data)
        text = data.decode("utf-8")
    except (EverloopError, ValueError):
        return None
    header = dict(
        line.split("=", 1) for line in text.partition("\nTree=")[0].splitlines() if "=" in line
    )
    names = header.get("feature_names", "").split(" ")
    ranges = header.get("feature_infos", "").split(" ")
    fields = _lightgbm_fields(names, ranges, _categories(text), columns)
    if fields is None:
        return None
    task: Task = (
        "classification"
        if header.get("objective", "").startswith(_CLASS_OBJECTIVES)
        else "regression"
    )
    signature = _signature(fields, target, task)
    return None if signature is None else (signature, "lightgbm", path)


def _lightgbm_fields(
    names: list[str],
    ranges: list[str],
    categories: list[list[str]] | None,
    columns: list[_Column] | None,
) -> list[Field] | None:
    if categories is None or len(ranges) != len(names):
        return None
    # LightGBM writes a blank in a name as an underscore, so columns are matched by their places.
    if columns is not None and [_blankless(column.name) for column in columns] != names:
        return None
    told = columns or [_Column(name, "float64") for name in names]
    texts = [column for column in told if column.dtype == "string"]
    if len(texts) != len(categories):
        return None
    rest = iter(categories)
    fields = []
    for column, limits in zip(told, ranges, strict=True):
        if column.dtype == "string":
            values = tuple(next(rest))
            fields.append(Field(name=column.name, dtype="string", nullable=True, categories=values))
            continue
        low, high = _limits(limits)
        fields.append(
            Field(
                name=column.name,
                dtype=column.dtype,
                nullable=column.dtype == "float64",
                minimum=low,
                maximum=high,
            )
        )
    return fields


def _blankless(name: str) -> str:
    return name.replace(" ", "_")


def _categories(text: str) -> list[list[str]] | None:
    """Return the categories of each categorical column as pandas had them; None for no texts."""
    line = text.rpartition("\npandas_categorical:")[2].partition("\n")[0].strip()
    if "\npandas_categorical:" not in text or line in {"null", "[]"}:
        return []
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    is_texts = isinstance(found, list) and all(
        isinstance(values, list) and all(isinstance(value, str) for value in values)
        for values in found
    )
    return found if is_texts else None


def _limits(text: str) -> tuple[float | None, float | None]:
    match = _RANGE.fullmatch(text)
    try:
        low, high = (float(part) for part in match.groups()) if match else (math.nan, math.nan)
    except ValueError:
        return None, None
    return (low, high) if math.isfinite(low) and math.isfinite(high) else (None, None)


def _others(
    flavors: Mapping[str, Any],
    sizes: Mapping[str, int],
    columns: list[_Column] | None,
    target: str,
    output: _Output,
) -> _Found:
    """Return what the schema alone says; files of other libraries are found by their names."""
    # Which values a text column may hold stands nowhere in a schema.
    if columns is None or any(column.dtype == "string" for column in columns):
        return None, None, ""
    fields = [
        Field(name=column.name, dtype=column.dtype, nullable=column.dtype == "float64")
        for column in columns
    ]
    signature = _signature(fields, target, "classification" if output.is_class else "regression")
    return signature, *_native(flavors, sizes)


def _native(flavors: Mapping[str, Any], sizes: Mapping[str, int]) -> tuple[str | None, str]:
    """Return the format and the path of a file that has a safe format by its name."""
    for name, (key, suffixes) in _NATIVE.items():
        flavor = flavors.get(name)
        path = str(flavor.get(key)) if isinstance(flavor, dict) else ""
        if path.endswith(suffixes) and path in sizes:
            return name, path
    return None, ""


def _signature(fields: list[Field], target: str, task: Task) -> Signature | None:
    limits = (0.0, 1.0) if task == "classification" else (None, None)
    output = Field(name=target, dtype="float64", minimum=limits[0], maximum=limits[1])
    signature = Signature(inputs=tuple(fields), output=output, task=task)
    try:
        check_signature(signature)
    except EverloopError:
        return None
    return signature
