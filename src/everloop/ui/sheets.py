"""What a list of runs shows as a file: CSV as it comes, or Parquet, whatever the number of runs."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from starlette.responses import Response, StreamingResponse

from everloop.core.errors import InvalidInput
from everloop.track.search import FoundRun
from everloop.ui.cells import is_number, value_of
from everloop.ui.columns import Column, chosen_columns, usual_columns
from everloop.ui.runs import Found, Listing, find_runs
from everloop.ui.visit import Visit

MOST_ROWS: Final = 200_000
PAGE: Final = 1_000
_FORMULAS: Final = ("=", "+", "-", "@", "\t", "\r")


def send(visit: Visit) -> Response:
    """Send the runs that a listing finds, in its columns and its order."""
    listing = replace(Listing.of(visit), after="")
    first = find_runs(visit, listing, limit=PAGE)
    if first.problem is not None:
        raise first.problem
    kind = visit.param("format") or "csv"
    columns = chosen_columns(listing.columns) or usual_columns(
        first.runs.items, with_experiment=not listing.experiment
    )
    pages = _pages(visit, listing, first)
    if kind == "csv":
        return _answer(_as_csv(pages, columns), "text/csv; charset=utf-8", "runs.csv")
    if kind == "parquet":
        body = _as_parquet(pages, columns)
        return _answer(iter((body,)), "application/vnd.apache.parquet", "runs.parquet")
    raise InvalidInput(
        "export.format_unknown", f"{kind[:20]!r} is no format.", hint="Use csv or parquet."
    )


def _pages(visit: Visit, listing: Listing, first: Found) -> Iterator[Sequence[FoundRun]]:
    found, rows = first, 0
    while True:
        yield found.runs.items
        rows += len(found.runs.items)
        if found.runs.next is None or rows >= MOST_ROWS:
            return
        found = find_runs(visit, replace(listing, after=found.runs.next), limit=PAGE)


def _as_csv(pages: Iterator[Sequence[FoundRun]], columns: Sequence[Column]) -> Iterator[bytes]:
    heads = ["id", "name", *(column.key for column in columns)]
    yield _lines([heads])
    for runs in pages:
        yield _lines([[_cell(value) for value in _values(run, columns)] for run in runs])


def _as_parquet(pages: Iterator[Sequence[FoundRun]], columns: Sequence[Column]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [_values(run, columns) for runs in pages for run in runs]
    table: dict[str, pa.Array] = {}
    for index, key in enumerate(["id", "name", *(column.key for column in columns)]):
        values = [row[index] for row in rows]
        is_metric = key.startswith("metrics.")
        table[key] = (
            pa.array([None if v is None else float(str(v)) for v in values], pa.float64())
            if is_metric
            else pa.array(values)
        )
    file = io.BytesIO()
    pq.write_table(pa.table(table), file, compression="zstd")
    return file.getvalue()


def _values(run: FoundRun, columns: Sequence[Column]) -> list[object]:
    found = (value_of(run, column) for column in columns)
    return [run.id, run.name, *(str(v) if isinstance(v, str) else v for v in found)]


def _cell(value: object) -> str:
    """Return a cell that a spreadsheet takes for what it is and never for a formula."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.isoformat()
    text = str(value)
    return f"'{text}" if text.startswith(_FORMULAS) and not is_number(text) else text


def _lines(rows: list[list[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode("utf-8", "replace")


def _answer(body: Iterator[bytes], kind: str, name: str) -> Response:
    headers = {
        "content-disposition": f'attachment; filename="{name}"',
        "cache-control": "no-store",
    }
    return StreamingResponse(body, media_type=kind, headers=headers)
