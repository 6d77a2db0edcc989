"""Answers many rows from files, part by part, as the server answers them one request at a time.

A part is some row groups of a Parquet file, or one CSV file. Each is read, answered by the sealed
bundle's own runtime and written under a name of its own, complete or not at all; so whatever
interrupts the work, finished parts need not be answered again. Runs in any process that has the
bundle and sees the files: here, or on a cluster.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
import numpy as np
import numpy.typing as npt

from everloop.core.errors import InvalidInput
from everloop.core.wire import Status
from everloop.registry.signature import Field, Signature, to_matrix
from everloop.serve.bundle import LoadedBundle, open_bundle
from everloop.serve.decode import FloatArray
from everloop.serve.identity import MOST_ROWS, IdBlocks, to_ids
from everloop.serve.protocol import InputField

if TYPE_CHECKING:
    import pyarrow as pa

PART_ROWS: Final = 262_144
CHUNK: Final = 4_096
ID, VERSION, STATUS, REASON = "prediction_id", "model_version", "status", "reason"
REFUSED: Final = "refused"
_TYPES: Final = {"float64": "double", "int64": "int64", "bool": "bool", "string": "string"}


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One piece of work.

    Attributes:
        file: Where its rows are.
        groups: Row groups of a Parquet file; empty for the whole of a CSV file.
        rows: How many rows it has; 0 where only reading tells.
        name: Name of the file of its answers.
    """

    file: str
    groups: tuple[int, ...]
    rows: int
    name: str


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """What all parts have in common.

    Attributes:
        bundle: Folder of the sealed bundle.
        seal: Names the bundle that lies there: another may lie at the same place later.
        public_key: Hex of the key that sealed it.
        target: Folder of the answers.
        keep: Columns of the input that stand beside the answers.
    """

    bundle: str
    seal: str
    public_key: str
    target: str
    keep: tuple[str, ...] = ()


def plan_parts(files: Sequence[Path], part_rows: int = PART_ROWS) -> list[Part]:
    """Return the parts of some files, in the order of their rows.

    Raises:
        InvalidInput: ``batch.unreadable`` for a file that is neither Parquet nor CSV.
    """
    import pyarrow as pa
    from pyarrow import parquet

    found: list[tuple[str, tuple[int, ...], int]] = []
    for file in files:
        if file.suffix != ".parquet":
            found.append((str(file), (), 0))
            continue
        try:
            about = parquet.read_metadata(file)
        except (pa.ArrowException, OSError) as error:
            raise _unreadable(file, error) from error
        sizes = [about.row_group(k).num_rows for k in range(about.num_row_groups)]
        begin, rows = 0, 0
        for place, size in enumerate(sizes):
            rows += size
            if rows >= part_rows or place == len(sizes) - 1:
                found.append((str(file), tuple(range(begin, place + 1)), rows))
                begin, rows = place + 1, 0
        if not sizes:
            found.append((str(file), (), 0))
    return [
        Part(file=file, groups=groups, rows=rows, name=f"part-{place:05d}.parquet")
        for place, (file, groups, rows) in enumerate(found)
    ]


def score_part(task: Task, part: Part) -> int:
    """Answer a part and return its number of rows; one that is answered already is left alone.

    Raises:
        InvalidInput: ``batch.unreadable``, or ``signature.rows_refused`` for missing columns.
        IntegrityError: the bundle does not verify.
    """
    from pyarrow import parquet

    target = Path(task.target) / part.name
    if target.exists():
        return int(parquet.read_metadata(target).num_rows)
    loaded = _open(task.bundle, task.seal, task.public_key)
    table = _read(part, loaded.bundle.inputs)
    answered = answer_table(loaded, table, task.keep)
    draft = target.with_name(f".{part.name}.{os.getpid()}")
    with draft.open("wb") as file:
        parquet.write_table(answered, file, compression="zstd")
        file.flush()
        os.fsync(file.fileno())
    draft.replace(target)
    return int(answered.num_rows)


def answer_table(loaded: LoadedBundle, table: pa.Table, keep: Sequence[str] = ()) -> pa.Table:
    """Return the answers to a table's rows: kept columns, id, version, status, reason, outputs.

    A row that the server would refuse, since something is missing that must be there, is
    ``refused`` and has no output; the others do not suffer for it. The reason says what is wrong
    with a row that is not ``ok``, and is null for the others.

    Raises:
        InvalidInput: ``signature.rows_refused`` or ``batch.unreadable``.
    """
    import pyarrow as pa

    missing = [name for name in keep if name not in table.column_names]
    if missing:
        raise InvalidInput(
            "batch.unreadable",
            f"There is no column {missing[0][:80]!r} to keep.",
            hint=f"There are: {', '.join(table.column_names)[:300]}.",
        )
    bundle = loaded.bundle
    matrix = to_matrix(_signature(bundle.inputs), table)
    lacks = _find_lacks(bundle.inputs, table)
    fit = lacks == ""
    width = len(bundle.outputs) or 1
    outputs = np.full((len(matrix), width), np.nan)
    asked = matrix if fit.all() else np.ascontiguousarray(matrix[fit])
    batch = bundle.verdict.best_batch if bundle.verdict else CHUNK
    if len(asked):
        outputs[fit] = _ask(loaded, asked, max(1, min(batch, MOST_ROWS))).reshape(-1, width)
    columns: dict[str, object] = {name: table[name] for name in keep}
    columns[ID] = pa.array(_ids(len(matrix)), pa.string())
    columns[VERSION] = pa.array([bundle.version_id] * len(matrix), pa.string())
    statuses = _statuses(loaded, outputs, fit)
    columns[STATUS] = pa.array(statuses, pa.string())
    columns[REASON] = pa.array(_reasons(statuses, outputs, lacks), pa.string())
    names = bundle.outputs or (bundle.output_name,)
    for place, name in enumerate(names):
        numbers = outputs[:, place]
        columns[name] = pa.array(numbers, mask=~np.isfinite(numbers))
    return pa.table(columns)


def join_parts(parts: Sequence[Path], target: Path) -> None:
    """Write the answers of all parts as one file, CSV or Parquet by its ending.

    Raises:
        InvalidInput: ``batch.target`` for kept columns that CSV has no form for.
    """
    import pyarrow as pa
    from pyarrow import csv, parquet

    draft = target.with_name(f".{target.name}.{os.getpid()}")
    writer: csv.CSVWriter | parquet.ParquetWriter | None = None
    try:
        for part in parts:
            table = parquet.read_table(part)
            if writer is None and target.suffix.lower() == ".csv":
                writer = csv.CSVWriter(draft, table.schema)
            elif writer is None:
                writer = parquet.ParquetWriter(draft, table.schema, compression="zstd")
            writer.write_table(table)
    except pa.ArrowException as error:
        draft.unlink(missing_ok=True)
        raise InvalidInput(
            "batch.target",
            f"The answers can't be written as {target.suffix}: {str(error)[:200]}.",
            hint="Write .parquet, or keep no columns of lists and structures.",
        ) from error
    finally:
        if writer is not None:
            writer.close()
    draft.replace(target)


def count_statuses(parts: Iterable[Path]) -> dict[str, int]:
    """Return how many rows of each status the answers of some parts have."""
    from pyarrow import parquet

    counts: Counter[str] = Counter()
    for part in parts:
        for one in parquet.read_table(part, columns=[STATUS])[STATUS].value_counts().to_pylist():
            counts[one["values"]] += one["counts"]
    return dict(counts)


@cache
def _open(folder: str, seal: str, public_key: str) -> LoadedBundle:
    del seal
    return open_bundle(Path(folder), bytes.fromhex(public_key))


def _read(part: Part, inputs: Sequence[InputField]) -> pa.Table:
    import pyarrow as pa
    from pyarrow import csv, parquet

    try:
        if part.file.endswith(".parquet"):
            with parquet.ParquetFile(part.file) as file:
                return file.read_row_groups(list(part.groups)) if part.groups else file.read()
        types: Mapping[str, object] = {field.name: _TYPES[field.dtype] for field in inputs}
        return csv.read_csv(part.file, convert_options=csv.ConvertOptions(column_types=types))
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(Path(part.file), error) from error


def _ask(loaded: LoadedBundle, rows: FloatArray, batch: int) -> FloatArray:
    return np.concatenate(
        [
            np.asarray(loaded.model(rows[at : at + batch]), dtype=np.float64)
            for at in range(0, len(rows), batch)
        ]
    )


def _find_lacks(inputs: Sequence[InputField], table: pa.Table) -> npt.NDArray[np.object_]:
    """Name for each row the first input that must be there and is not; empty where all are."""
    lacks = np.full(table.num_rows, "", dtype=object)
    for field in inputs:
        column = table[field.name]
        if not field.nullable and column.null_count:
            lacks[column.is_null().to_numpy() & (lacks == "")] = field.name
    return lacks


def _statuses(
    loaded: LoadedBundle, outputs: FloatArray, fit: npt.NDArray[np.bool_]
) -> npt.NDArray[np.object_]:
    low, high = loaded.bundle.output_minimum, loaded.bundle.output_maximum
    sound = np.isfinite(outputs)
    with np.errstate(invalid="ignore"):
        sound &= outputs >= (-np.inf if low is None else low)
        sound &= outputs <= (np.inf if high is None else high)
    found = np.where(sound.all(axis=1), Status.OK.value, Status.INVALID.value).astype(object)
    found[~fit] = REFUSED
    return found


def _reasons(
    statuses: npt.NDArray[np.object_], outputs: FloatArray, lacks: npt.NDArray[np.object_]
) -> list[str | None]:
    reasons: list[str | None] = [None] * len(statuses)
    for place in np.flatnonzero(statuses != Status.OK.value):
        if lacks[place]:
            reasons[place] = f"{lacks[place]} is missing"
        elif np.isfinite(outputs[place]).all():
            reasons[place] = "the answer is out of the model's bounds"
        else:
            reasons[place] = "the answer is no number"
    return reasons


def _ids(rows: int) -> list[str]:
    blocks = IdBlocks()
    found: list[str] = []
    while len(found) < rows:
        found.extend(to_ids(blocks.take(), min(MOST_ROWS, rows - len(found))))
    return found


def _signature(inputs: Sequence[InputField]) -> Signature:
    fields = tuple(msgspec.convert(msgspec.to_builtins(field), Field) for field in inputs)
    return Signature(inputs=fields, output=Field(name="answer", dtype="float64"), task="regression")


def _unreadable(file: Path, error: Exception) -> InvalidInput:
    return InvalidInput(
        "batch.unreadable",
        f"{file.name[:80]} cannot be read: {str(error)[:200]}.",
        hint="Give Parquet, or CSV with a header.",
    )
