"""What is logged beside numbers becomes files that other programs read."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from everloop.core.errors import InvalidInput
from everloop.track.media import MediaLog


class Kept(MediaLog):
    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    def log_artifact(self, source: Path | str | bytes, path: str | None = None) -> None:
        assert isinstance(source, bytes)
        self.files[str(path)] = source


@pytest.fixture
def log() -> Kept:
    return Kept()


def pixels_of(png: bytes) -> tuple[tuple[int, int, int], np.ndarray]:
    """Read a PNG whose lines are not filtered, chunk by chunk, each with its checksum."""
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    place, chunks = 8, {}
    while place < len(png):
        (size,) = struct.unpack_from(">I", png, place)
        kind, data = png[place + 4 : place + 8], png[place + 8 : place + 8 + size]
        (checksum,) = struct.unpack_from(">I", png, place + 8 + size)
        assert zlib.crc32(kind + data) == checksum
        chunks[kind], place = data, place + 12 + size
    width, height, depth, colours = struct.unpack_from(">IIBB", chunks[b"IHDR"])
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[colours]
    lines = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, -1)
    assert not lines[:, 0].any()
    return (height, width, depth), lines[:, 1:].reshape(height, width, channels)


@pytest.mark.parametrize(
    "data",
    [
        [{"x": 1, "y": "a"}, {"x": 2, "y": "b"}],
        {"x": [1, 2], "y": ["a", "b"]},
        {"x": np.array([1, 2]), "y": ("a", "b")},
        pa.table({"x": [1, 2], "y": ["a", "b"]}),
        pa.record_batch({"x": [1, 2], "y": ["a", "b"]}),
    ],
)
def test_rows_columns_and_tables_become_the_same_parquet_file(log: Kept, data: object) -> None:
    log.log_table(data, "answers")

    table = pq.read_table(io.BytesIO(log.files["answers.parquet"]))
    assert {"x": [1, 2], "y": ["a", "b"]} == table.to_pydict()


def test_rows_may_lack_values_and_a_single_row_may_be_plain(log: Kept) -> None:
    log.log_table([{"x": 1}, {"y": np.float64(2.5)}], "rows.parquet")
    log.log_table({"x": 1, "y": "a"}, "one.parquet")

    rows = pq.read_table(io.BytesIO(log.files["rows.parquet"])).to_pydict()
    assert {"x": [1, None], "y": [None, 2.5]} == rows
    one = pq.read_table(io.BytesIO(log.files["one.parquet"])).to_pydict()
    assert {"x": [1], "y": ["a"]} == one


def test_a_document_is_json_or_yaml_with_numbers_of_numpy(log: Kept) -> None:
    values: dict[str, object] = {
        "rate": np.float32(0.5),
        "sizes": np.array([1, 2]),
        "name": "größer",
        "3": None,
    }
    log.log_dict(values, "setup.json")
    log.log_dict(values, "setup.yaml")

    expected = {"rate": 0.5, "sizes": [1, 2], "name": "größer", "3": None}
    assert expected == json.loads(log.files["setup.json"])
    assert expected == yaml.safe_load(log.files["setup.yaml"])


def test_a_text_is_kept_in_utf8(log: Kept) -> None:
    log.log_text("Grüße\n", "notes/read.txt")

    assert "Grüße\n".encode() == log.files["notes/read.txt"]


@pytest.mark.parametrize(
    ("image", "shape", "first"),
    [
        (np.array([[0, 255]], np.uint8), (1, 2, 8), [0]),
        (np.array([[[0.5, 0.0, 1.0]]]), (1, 1, 8), [128, 0, 255]),
        (np.array([[[9, 8, 7, 6]]], np.int64), (1, 1, 8), [9, 8, 7, 6]),
        (np.array([[np.nan, np.inf, -1.0]]), (1, 3, 8), [0]),
        (np.array([[True], [False]]), (2, 1, 8), [255]),
    ],
)
def test_an_array_becomes_a_png(
    log: Kept, image: np.ndarray, shape: tuple[int, int, int], first: list[int]
) -> None:
    log.log_image(image, "sample.png")

    told, pixels = pixels_of(log.files["sample.png"])
    assert shape == told
    assert first == pixels[0, 0].tolist()


class Picture:
    """Stands for an image of Pillow."""

    mode = "RGB"

    def save(self, sink: io.BytesIO, format: str) -> None:
        sink.write(f"as {format}".encode())


class Drawing:
    """Stands for a figure of Matplotlib."""

    def savefig(self, sink: io.BytesIO, format: str) -> None:
        sink.write(f"drawn as {format}".encode())


class Chart:
    """Stands for a figure of Plotly."""

    def to_html(self, include_plotlyjs: bool) -> str:
        return f"<html {include_plotlyjs}>"

    def to_json(self) -> str:
        return "{}"


def test_figures_and_images_are_written_as_their_suffix_says(log: Kept) -> None:
    log.log_image(Picture(), "a.jpg")
    log.log_image(b"raw", "b.webp")
    log.log_figure(Drawing(), "c.svg")
    log.log_figure(Chart(), "d.html")
    log.log_figure(Chart(), "e.json")

    assert {
        "a.jpg": b"as JPEG", "b.webp": b"raw", "c.svg": b"drawn as svg",
        "d.html": b"<html True>", "e.json": b"{}",
    } == log.files  # fmt: skip


@pytest.mark.parametrize(
    "call",
    [
        lambda log: log.log_table(3, "t"),
        lambda log: log.log_table({"x": [1, 2], "y": [1]}, "t"),
        lambda log: log.log_table([1, 2], "t"),
        lambda log: log.log_dict({"x": object()}, "d.json"),
        lambda log: log.log_image(np.zeros((2, 2, 7)), "i.png"),
        lambda log: log.log_image(np.array([[300]]), "i.png"),
        lambda log: log.log_image("no image", "i.png"),
        lambda log: log.log_figure(object(), "f.png"),
        lambda log: log.log_figure(Chart(), "f.png"),
    ],
)
def test_what_cannot_be_written_is_refused_with_a_hint(
    log: Kept, call: Callable[[Kept], None]
) -> None:
    with pytest.raises(InvalidInput) as refused:
        call(log)

    assert refused.value.hint
    assert {} == log.files
