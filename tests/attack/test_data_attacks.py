"""Hostile files and paths on their way into a dataset."""

from __future__ import annotations

import gzip
import io
import os
from contextlib import suppress
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from everloop.core.digest import Digest, content_digest
from everloop.core.errors import (
    Denied,
    EverloopError,
    IntegrityError,
    InvalidInput,
    LimitExceeded,
    NotFound,
)
from everloop.core.manifest import FileEntry
from everloop.data import tables
from everloop.data.model import DatasetVersion
from everloop.data.queries import ListDatasets, ShowDataset
from everloop.data.snapshot import commit_path, commit_table
from everloop.data.tables import read_table
from everloop.data.verbs import CommitDataset, Committed
from everloop.kernel.authz import Role
from tests.kit import World, world

TABLE = pa.table({"x": [1, 2, 3]})


def send(here: World, path: str, data: bytes, *, name: str = "d", size: int | None = None) -> None:
    here.blobs.put(data)
    entry = FileEntry(
        path=path, digest=content_digest(data), size_bytes=len(data) if size is None else size
    )
    here.owner.perform("data.commit", CommitDataset(name=name, files=(entry,)), Committed)


@pytest.mark.parametrize(
    "path", ["../x.csv", "/etc/x.csv", "a/%2e%2e/x.csv", "C:\\x.csv", "x\x00.csv", "file://h/x.csv"]
)
def test_a_path_that_leads_elsewhere_never_gets_into_a_manifest(path: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        send(world(), path, b"x\n1\n")

    assert refused.value.code == "path.invalid"


@pytest.mark.parametrize("name", ["../d", "a/b", "", "d@1", "d:1", "..", "a" * 101, "dä"])
def test_a_dataset_has_a_plain_name(name: str) -> None:
    with pytest.raises(InvalidInput):
        send(world(), "x.csv", b"x\n1\n", name=name)


@pytest.mark.parametrize("digest", ["", "../x", "sha1:00", "blake3:" + "G" * 64, "blake3:../" * 9])
def test_a_digest_that_is_none_is_refused(digest: str) -> None:
    here = world()
    entry = FileEntry(path="x.csv", digest=Digest(digest), size_bytes=1)

    with pytest.raises(InvalidInput):
        here.owner.perform("data.commit", CommitDataset(name="d", files=(entry,)), Committed)


def test_bytes_of_another_size_or_never_uploaded_are_refused() -> None:
    here = world()

    with pytest.raises(InvalidInput):
        send(here, "x.csv", b"x\n1\n", size=400)
    absent = FileEntry(path="x.csv", digest=content_digest(b"absent"), size_bytes=6)
    with pytest.raises(NotFound):
        here.owner.perform("data.commit", CommitDataset(name="d", files=(absent,)), Committed)


def test_a_gzip_bomb_is_stopped_while_it_unpacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MOST_TABLE_BYTES", 1 << 20)
    bomb = gzip.compress(b"x\n" + b"1\n" * (4 << 20))

    with pytest.raises(LimitExceeded):
        send(world(), "x.csv.gz", bomb)


def test_a_parquet_file_that_states_a_huge_table_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tables, "MOST_TABLE_BYTES", 1 << 20)
    sink = io.BytesIO()
    pq.write_table(pa.table({"x": pa.array(range(400_000))}), sink, use_dictionary=False)
    zeros = pa.table({"x": pa.array([0] * 4_000_000, pa.int64())})
    small = io.BytesIO()
    pq.write_table(zeros, small, compression="zstd", use_dictionary=False)
    assert len(small.getvalue()) < 1 << 20

    with pytest.raises(LimitExceeded):
        send(world(), "x.parquet", small.getvalue())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe\x00",
        b"a,b\n1\n",
        b'"unclosed',
        b"x,x\n1,2\n",
        b"\x1f\x8bbroken",
        b"a\n\xff\n",
    ],
)
@pytest.mark.parametrize("path", ["x.csv", "x.csv.gz", "x.parquet"])
def test_bytes_that_are_no_table_give_a_clean_error(path: str, data: bytes) -> None:
    with suppress(EverloopError):
        send(world(), path, data)


def test_parquet_bytes_changed_anywhere_never_give_a_trace() -> None:
    here = world()
    data = tables.to_parquet(pa.table({"x": list(range(200)), "y": ["a", "b"] * 100}))
    for spot in range(0, len(data), 11):
        broken = data[:spot] + bytes([data[spot] ^ 0xFF]) + data[spot + 1 :]
        with suppress(EverloopError):
            send(here, "x.parquet", broken)


def test_a_pipe_in_a_folder_is_refused_without_reading_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.csv")

    with pytest.raises(InvalidInput) as refused:
        commit_path(world().owner, "d", tmp_path)

    assert refused.value.code == "path.not_a_file"


def test_a_linked_folder_is_refused_and_not_entered(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "x.csv").write_text("x\n1\n")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "y.csv").write_text("x\n1\n")
    (tmp_path / "in" / "link").symlink_to(tmp_path / "out")

    with pytest.raises(InvalidInput) as refused:
        commit_path(world().owner, "d", tmp_path / "in")

    assert refused.value.code == "path.link_refused"


def test_a_version_whose_row_names_another_manifest_does_not_read() -> None:
    here = world()
    one = commit_table(here.owner, "d", TABLE)
    other = commit_table(here.owner, "d", TABLE.slice(1))

    with pytest.raises(IntegrityError):
        read_table(here.blobs, msgspec.structs.replace(one, manifest=other.manifest))


def test_datasets_of_another_project_are_invisible() -> None:
    here = world()
    version = commit_table(here.owner, "d", TABLE)
    here.project("other")
    eve = here.person("eve", Role.ADMIN, project="other")

    for ref in (version.id, "d", "d@1"):
        with pytest.raises(NotFound):
            eve.perform("data.show", ShowDataset(ref=ref), DatasetVersion)


def test_a_viewer_reads_and_does_not_commit() -> None:
    here = world()
    vic = here.person("vic", Role.VIEWER)

    with pytest.raises(Denied):
        commit_table(vic, "d", TABLE)
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"limit": 10**9}, ListDatasets)
