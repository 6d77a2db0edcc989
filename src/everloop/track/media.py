"""Turns what people log beside numbers into files: tables, figures, images, texts.

Libraries that draw are never imported here: a figure or an image is known by what it can do.
"""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final, Protocol

import msgspec
import numpy as np

from everloop.core.errors import InvalidInput

if TYPE_CHECKING:
    import pyarrow as pa

_PNG: Final = b"\x89PNG\r\n\x1a\n"
_COLOURS: Final = {1: 0, 2: 4, 3: 2, 4: 6}  # channels of an image to PNG's colour type


class FileLog(Protocol):
    """Where files go."""

    def log_artifact(self, source: Path | str | bytes, path: str | None = None) -> None:
        """Keep bytes under a path."""
        ...


class MediaLog:
    """The log calls that make a file of what they are given."""

    def log_text(self: FileLog, text: str, path: str) -> None:
        """Keep a text as a file in UTF-8.

        Raises:
            InvalidInput: the path is not usable, or the run has ended.
        """
        self.log_artifact(text.encode("utf-8", "surrogateescape"), path)

    def log_dict(self: FileLog, values: Mapping[str, object] | Sequence[object], path: str) -> None:
        """Keep a dictionary or a list as JSON, or as YAML when the path ends so.

        Raises:
            InvalidInput: ``run.not_json``, the path is not usable, or the run has ended.
        """
        self.log_artifact(to_document(values, PurePosixPath(path).suffix), path)

    def log_table(self: FileLog, data: object, path: str) -> None:
        """Keep a table as Parquet.

        Args:
            data: A list of rows (dictionaries), a dictionary of columns, a frame of pandas or
                Polars, or a pyarrow table.
            path: Its path within the run; ``.parquet`` is added when it has no suffix.

        Raises:
            InvalidInput: ``run.not_a_table``, the path is not usable, or the run has ended.
        """
        name = path if PurePosixPath(path).suffix else f"{path}.parquet"
        self.log_artifact(to_parquet(data), name)

    def log_figure(self: FileLog, figure: object, path: str) -> None:
        """Keep a figure of Matplotlib, or of Plotly, in the format of the path's suffix.

        Args:
            figure: The figure.
            path: Its path within the run, such as ``loss.png`` or ``loss.html``.

        Raises:
            InvalidInput: ``run.not_a_figure``, the path is not usable, or the run has ended.
        """
        self.log_artifact(to_figure(figure, PurePosixPath(path).suffix.lower()), path)

    def log_image(self: FileLog, image: object, path: str) -> None:
        """Keep an image.

        Args:
            image: One of Pillow, an array of height x width (x 1, 3 or 4 channels) that holds
                bytes or numbers from 0 to 1, or the bytes of an image file.
            path: Its path within the run, such as ``sample.png``.

        Raises:
            InvalidInput: ``run.not_an_image``, the path is not usable, or the run has ended.
        """
        self.log_artifact(to_image(image, PurePosixPath(path).suffix.lower()), path)


def to_document(values: object, suffix: str) -> bytes:
    """Return values as JSON, or as YAML for the suffixes of YAML.

    Raises:
        InvalidInput: ``run.not_json``.
    """
    try:
        # What msgspec knows (times, paths, numpy's numbers through the hook) becomes plain first.
        plain = msgspec.to_builtins(values, enc_hook=_to_plain, str_keys=True)
        if suffix in {".yaml", ".yml"}:
            import yaml

            return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True).encode()
        return json.dumps(plain, indent=1, ensure_ascii=False).encode()
    except (TypeError, ValueError) as error:
        raise InvalidInput(
            "run.not_json",
            f"This cannot be written as a document: {error}.",
            hint="Log numbers, texts, lists and dictionaries of them.",
        ) from error


def to_parquet(data: object) -> bytes:
    """Return a table as the bytes of a Parquet file.

    Raises:
        InvalidInput: ``run.not_a_table``.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = _to_table(data)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise InvalidInput(
            "run.not_a_table",
            f"A {type(data).__name__} could not be read as a table: {error}."[:500],
            hint="Give a list of dictionaries, a dictionary of columns, or a frame.",
        ) from error
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def _to_table(data: object) -> pa.Table:
    import pyarrow as pa

    if isinstance(data, pa.Table):
        return data
    if isinstance(data, pa.RecordBatch):
        return pa.Table.from_batches([data])
    if isinstance(data, Mapping):
        return pa.table({str(name): _to_column(column) for name, column in data.items()})
    if hasattr(data, "to_arrow"):  # Polars
        return data.to_arrow()
    if hasattr(data, "iloc"):  # pandas
        return pa.Table.from_pandas(data)
    if isinstance(data, Sequence) and not isinstance(data, str | bytes):
        names = dict.fromkeys(str(name) for row in data for name in dict(row))
        columns = {name: [dict(row).get(name) for row in data] for name in names}
        return pa.table({name: _to_column(column) for name, column in columns.items()})
    message = "it has neither rows nor columns"
    raise TypeError(message)


def _to_column(column: object) -> object:
    if isinstance(column, str | bytes) or not hasattr(column, "__len__"):
        return [column]
    if isinstance(column, list | tuple):
        return [value.item() if isinstance(value, np.generic) else value for value in column]
    return column


def to_figure(figure: object, suffix: str) -> bytes:
    """Return a figure in the format of the suffix.

    Raises:
        InvalidInput: ``run.not_a_figure``.
    """
    kind = suffix.removeprefix(".")
    try:
        if hasattr(figure, "savefig"):  # Matplotlib
            sink = io.BytesIO()
            figure.savefig(sink, format=kind or "png")
            return sink.getvalue()
        if hasattr(figure, "to_html") and kind in {"html", "htm"}:  # Plotly
            return str(figure.to_html(include_plotlyjs=True)).encode()
        if hasattr(figure, "to_json") and kind == "json":
            return str(figure.to_json()).encode()
        if hasattr(figure, "to_image"):
            return bytes(figure.to_image(format=kind or "png"))
    except (ValueError, OSError, ImportError) as error:
        raise _no_figure(figure, str(error)) from error
    raise _no_figure(figure, f"it cannot be written as {suffix or 'a file'}")


def _no_figure(figure: object, why: str) -> InvalidInput:
    return InvalidInput(
        "run.not_a_figure",
        f"A {type(figure).__name__} could not be drawn: {why}."[:500],
        hint="Give a figure of Matplotlib (png, svg, pdf) or of Plotly (html, json).",
    )


def to_image(image: object, suffix: str) -> bytes:
    """Return an image in the format of the suffix.

    Raises:
        InvalidInput: ``run.not_an_image``.
    """
    if isinstance(image, bytes | bytearray):
        return bytes(image)
    try:
        if hasattr(image, "save") and hasattr(image, "mode"):  # Pillow
            sink = io.BytesIO()
            name = {"": "PNG", ".jpg": "JPEG"}.get(suffix, suffix.removeprefix(".").upper())
            image.save(sink, format=name)
            return sink.getvalue()
        return encode_png(_to_pixels(image))
    except (ValueError, TypeError, KeyError, OSError) as error:
        raise InvalidInput(
            "run.not_an_image",
            f"A {type(image).__name__} could not be read as an image: {error}."[:500],
            hint="Give an image of Pillow, or an array of height x width (x 1, 3 or 4 channels).",
        ) from error


def _to_pixels(image: object) -> np.ndarray:
    """Return an array of bytes: height, width, channels."""
    pixels = np.asarray(image)
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if pixels.ndim != 3 or pixels.shape[2] not in _COLOURS or 0 in pixels.shape:
        message = f"its shape is {pixels.shape}"
        raise ValueError(message)
    if pixels.dtype == bool:
        return pixels.astype(np.uint8) * np.uint8(255)
    if pixels.dtype.kind == "f":
        whole = np.nan_to_num(pixels, nan=0.0, posinf=1.0, neginf=0.0)
        scaled: np.ndarray = np.clip(whole, 0.0, 1.0) * 255.0 + 0.5
        return scaled.astype(np.uint8)
    if pixels.dtype.kind not in "iu" or pixels.min() < 0 or pixels.max() > 255:
        message = "its numbers are not from 0 to 255"
        raise ValueError(message)
    return pixels.astype(np.uint8)


def encode_png(pixels: np.ndarray) -> bytes:
    """Return bytes of height, width and 1 to 4 channels as a PNG file (ISO/IEC 15948)."""
    height, width, channels = pixels.shape
    head = struct.pack(">IIBBBBB", width, height, 8, _COLOURS[channels], 0, 0, 0)
    # Each line begins with its filter; 0 is none.
    lines = np.zeros((height, 1 + width * channels), np.uint8)
    lines[:, 1:] = pixels.reshape(height, width * channels)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(lines.tobytes(), 6)), (b"IEND", b""))
    return _PNG + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )


def _to_plain(value: object) -> object:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    message = f"{type(value).__name__} has no form in JSON"
    raise TypeError(message)
