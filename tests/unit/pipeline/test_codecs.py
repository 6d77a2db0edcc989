"""Values keep their meaning through their canonical bytes, and unknown types are refused."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from everloop.core.errors import InvalidInput
from everloop.pipeline.codecs import DatasetRef, FileRef, ModelFiles, encode
from everloop.pipeline.decoding import decode


class Colour(Enum):
    RED = 1


class Place(NamedTuple):
    x: int
    y: float


@dataclass(frozen=True)
class Settings:
    depth: int
    names: tuple[str, ...]


class Config(msgspec.Struct):
    rate: float
    inner: Settings


VALUES = [
    None, True, 3, -(2**80), 2**63, 0.1, -0.0, math.inf, "text", "", b"\x00\xff",
    [1, [2.0, "x"]], (1,), {"b": 1, "a": [2]}, {1: "x", (2, 3): None}, {3, 1, 2},
    frozenset({"a"}), datetime(2026, 1, 2, tzinfo=UTC), date(2026, 1, 2), timedelta(1, 2, 3),
    Decimal("1.10"), 1 + 2j, Colour.RED, Place(1, 2.5), Settings(3, ("a", "b")),
    Config(0.5, Settings(1, ())), DatasetRef("0190"), ModelFiles("lightgbm", {"m": b"x"}),
    np.float32(1.5), np.datetime64("2026-01-01"),
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_value_comes_back_equal_and_of_the_same_type(value: object, tmp_path: Path) -> None:
    back = decode(encode(value, "it").data, tmp_path)

    assert value == back
    assert type(value) is type(back)
    assert repr(value) == repr(back) or isinstance(value, set)


def test_nan_comes_back_and_has_one_digest() -> None:
    other = float(np.frombuffer(b"\x01\x00\x00\x00\x00\x00\xf8\xff", dtype="<f8")[0])

    assert math.isnan(decode(encode(math.nan, "it").data, Path()))  # type: ignore[arg-type]
    assert encode(math.nan, "it").digest == encode(other, "it").digest


@pytest.mark.parametrize("dtype", ["f8", ">i4", "bool", "U3", "M8[ns]", "f2"])
@pytest.mark.parametrize("shape", [(0,), (6,), (2, 3), ()])
def test_an_array_comes_back_writable(dtype: str, shape: tuple[int, ...]) -> None:
    array = np.zeros(shape, dtype=dtype)

    back = decode(encode(array, "it").data, Path())

    assert isinstance(back, np.ndarray)
    assert np.array_equal(array, back)
    assert array.dtype.newbyteorder("<") == back.dtype
    assert back.flags.writeable


def test_equal_arrays_have_one_digest_whatever_their_layout() -> None:
    array = np.arange(12.0).reshape(3, 4)
    digests = {
        encode(one, "it").digest
        for one in (
            array,
            np.asfortranarray(array),
            array.astype(">f8"),
            np.repeat(array, 2, 0)[::2],
        )
    }

    assert 1 == len(digests)
    assert encode(array.T, "it").digest not in digests


def test_equal_tables_have_one_digest_whatever_their_chunks() -> None:
    table = pa.table({"a": [1, 2, 3], "b": ["x", None, "z"]})
    parts = pa.concat_tables([table.slice(0, 1), table.slice(1)])

    assert encode(table, "it").digest == encode(parts, "it").digest
    assert table.equals(decode(encode(parts, "it").data, Path()))


def test_values_of_different_kinds_never_share_a_digest() -> None:
    values = [1, 1.0, True, "1", b"1", (1,), [1], {1}, ["int", "1"], None, {}, (), np.int64(1)]

    assert len(values) == len({encode(value, "it").digest for value in values})


@pytest.mark.parametrize(
    ("value", "advice"),
    [
        (object(), "Use numbers"),
        (Path("x"), "FileRef"),
        (len, "Call the function"),
        ([{"a": {1: object()}}], "Use numbers"),
        (np.array([object()]), "Use numbers"),
        ("\ud800", "Use numbers"),
    ],
)
def test_an_unknown_type_is_refused_by_name(value: object, advice: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        encode(value, "Argument 'x' of step work")

    assert "step.value_unsupported" == refused.value.code
    assert "Argument 'x' of step work" in refused.value.message
    assert advice in refused.value.hint


def test_a_value_that_contains_itself_is_refused() -> None:
    loop: list[object] = []
    loop.append(loop)

    with pytest.raises(InvalidInput, match="contains itself"):
        encode(loop, "it")


def test_a_file_counts_by_content_and_comes_back_into_a_folder_of_ours(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    for folder in ("a", "b"):
        (tmp_path / folder / "rows.csv").write_text("1,2\n")
    one, two = (encode(FileRef(str(tmp_path / f / "rows.csv")), "it") for f in ("a", "b"))

    back = decode(one.data, tmp_path / "files")

    assert one.digest == two.digest
    assert isinstance(back, FileRef)
    assert "1,2\n" == Path(back.path).read_text()
    assert Path(back.path).is_relative_to(tmp_path / "files")


def test_a_stored_file_cannot_name_a_path_outside_the_folder(tmp_path: Path) -> None:
    data = b"EVV1" + msgspec.msgpack.encode(["file", "../../escaped", b"x"])

    with pytest.raises(InvalidInput, match="no file name"):
        decode(data, tmp_path / "files" / "deep")


@pytest.mark.parametrize(
    "tree",
    [["struct", "subprocess:Popen", "args", "true"], ["dataclass", "os:system"], ["nothing"],
     ["enum", "antigravity:X", "Y"], ["array", "O", [1], b"12345678"], ["named", "builtins:int"]],
)  # fmt: skip
def test_stored_bytes_cannot_make_what_is_no_plain_value(
    tree: list[object], tmp_path: Path
) -> None:
    with pytest.raises(InvalidInput, match="cannot be read"):
        decode(b"EVV1" + msgspec.msgpack.encode(tree), tmp_path)
