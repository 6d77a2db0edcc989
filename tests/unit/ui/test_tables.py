"""Tables in files, a page at a time."""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from everloop.core.ports import BlobStore
from everloop.storage.memory_blobs import MemoryBlobStore
from everloop.ui import tables
from everloop.ui.tables import Table, Unreadable


@pytest.fixture
def blobs() -> BlobStore:
    return MemoryBlobStore()


def read(blobs: BlobStore, data: bytes, path: str, at: str = "") -> Table:
    return tables.read(blobs, blobs.put(data), len(data), path, at)


def parquet(rows: int, group: int, columns: int = 1) -> bytes:
    file = io.BytesIO()
    table = pa.table({f"c{n}": list(range(rows)) for n in range(columns)})
    pq.write_table(table, file, row_group_size=group)
    return file.getvalue()


@pytest.mark.parametrize("at", [0, 40, 99, 250, 299, 300, 10_000])
def test_a_page_of_parquet_begins_where_it_should(blobs: BlobStore, at: int) -> None:
    found = read(blobs, parquet(300, 70), "t.parquet", str(at))

    expected = list(range(at, min(at + tables.PAGE, 300)))
    assert [(str(n),) for n in expected] == list(found.rows)
    assert (300, at + len(expected) < 300 and at < 300) == (found.total, found.more and at < 300)


@pytest.mark.parametrize("path", ["t.csv", "T.TSV"])
def test_a_page_of_text_begins_where_it_should(blobs: BlobStore, path: str) -> None:
    mark = "\t" if path.lower().endswith("tsv") else ","
    data = f"a{mark}b\n" + "".join(f"{n}{mark}'{n}\n" for n in range(150))

    first, second = (read(blobs, data.encode(), path, at) for at in ("", "100"))

    assert (100, True, None) == (len(first.rows), first.more, first.total)
    assert (("100", "'100"), 50, False, 150) == (
        second.rows[0],
        len(second.rows),
        second.more,
        second.total,
    )


def test_lines_in_quotes_and_odd_bytes_are_read(blobs: BlobStore) -> None:
    found = read(blobs, b'a,b\n"x\ny",\xff\n1\n', "t.csv")

    assert (("x\ny", "\ufffd"), ("1", None)) == found.rows


def test_columns_that_do_not_fit_are_counted(blobs: BlobStore) -> None:
    found = read(blobs, parquet(3, 3, columns=70), "t.parquet")

    assert (60, 10) == (len(found.columns), found.columns_left_out)


def test_a_long_cell_is_cut(blobs: BlobStore) -> None:
    found = read(blobs, b"a\n" + b"x" * 1_000 + b"\n", "t.csv")

    assert found.rows[0][0] == "x" * tables.MAX_CELL_CHARS + "…"


def test_rows_too_far_into_a_file_are_refused(
    blobs: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "MAX_CSV_BYTES", 1_000)

    with pytest.raises(Unreadable, match="download it"):
        read(blobs, b"a\n" + b"1\n" * 600_000, "t.csv", "599999")


def test_large_groups_of_parquet_are_refused(
    blobs: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "MAX_DECODED_BYTES", 100)

    with pytest.raises(Unreadable, match="row groups"):
        read(blobs, parquet(300, 300), "t.parquet")


@pytest.mark.parametrize("text", [None, "", "-1", "x", "9" * 30, "²"])
def test_nonsense_begins_at_the_first_row(text: str | None) -> None:
    assert 0 == tables.to_offset(text)
