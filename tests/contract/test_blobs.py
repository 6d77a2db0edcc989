"""What the port `BlobStore` promises, for every store."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from everloop.core.digest import Digest, content_digest
from everloop.core.errors import IntegrityError, InvalidInput, NotFound
from everloop.core.ports import BlobStore
from everloop.storage import s3
from everloop.storage.localfs import LocalBlobStore
from everloop.storage.memory_blobs import MemoryBlobStore
from everloop.storage.s3 import PART_BYTES, S3BlobStore
from tests.parts.s3 import S3Server

ABSENT = content_digest(b"never stored")
LARGE = bytes(range(256)) * ((3 * PART_BYTES) // 256) + b"tail"
Damage = Callable[[Digest, bytes], None]


@pytest.fixture(params=["memory", "local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    if request.param == "memory":
        return MemoryBlobStore()
    if request.param == "local":
        return LocalBlobStore(tmp_path / "blobs")
    return open_s3(request.getfixturevalue("moto_s3"), request.getfixturevalue("s3_bucket"))


@pytest.fixture(params=["local", "s3"])
def damaged(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[BlobStore, Digest]:
    """A store in which somebody changed the bytes of one blob."""
    if request.param == "local":
        local = LocalBlobStore(tmp_path / "blobs")
        digest = local.put(b"truth")
        (path,) = [p for p in (tmp_path / "blobs").rglob("*") if p.is_file()]
        path.write_bytes(b"wrong")
        return local, digest
    import obstore

    remote = open_s3(request.getfixturevalue("moto_s3"), request.getfixturevalue("s3_bucket"))
    digest = remote.put(b"truth")
    digits = digest.partition(":")[2]
    obstore.put(remote._store, f"blake3/{digits[:2]}/{digits[2:]}", b"wrong")
    return remote, digest


def open_s3(server: S3Server, bucket: str, prefix: str = "") -> S3BlobStore:
    options = {
        "endpoint": server.endpoint,
        "access_key_id": server.access_key,
        "secret_access_key": server.secret_key,
        "region": server.region,
    }
    return S3BlobStore(f"s3://{bucket}{prefix}", options)


@pytest.mark.parametrize("data", [b"", b"x", b"\x00\xff" * 1000, LARGE], ids=len)
def test_bytes_come_back_as_they_were_put(store: BlobStore, data: bytes) -> None:
    digest = store.put(data)

    assert content_digest(data) == digest
    assert data == store.get(digest)
    assert data == b"".join(store.stream(digest))
    assert len(data) == store.size(digest)


@pytest.mark.parametrize("data", [b"", b"in a file", LARGE], ids=len)
def test_a_file_is_stored_as_its_bytes(store: BlobStore, tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "source.bin"
    path.write_bytes(data)

    digest = store.put_file(path)

    assert content_digest(data) == digest
    assert data == store.get(digest)


def test_putting_twice_is_as_putting_once(store: BlobStore, tmp_path: Path) -> None:
    path = tmp_path / "source.bin"
    path.write_bytes(b"same")

    digests = {store.put(b"same"), store.put(b"same"), store.put_file(path)}

    assert {content_digest(b"same")} == digests
    assert [content_digest(b"same")] == list(store.digests())


def test_all_stored_digests_are_listed(store: BlobStore) -> None:
    put = {store.put(str(number).encode()) for number in range(12)}

    assert put == set(store.digests())


def test_what_was_never_put_is_not_found(store: BlobStore) -> None:
    with pytest.raises(NotFound, match=r"blob\.not_found"):
        store.get(ABSENT)
    with pytest.raises(NotFound, match=r"blob\.not_found"):
        list(store.stream(ABSENT))
    assert store.size(ABSENT) is None
    assert store.delete(ABSENT) is False


@pytest.mark.parametrize(
    "name", ["", "blake3:", "../../etc/passwd", "blake3:../x", "sha256:" + 64 * "0"]
)
def test_a_name_that_is_no_blob_digest_is_not_found(store: BlobStore, name: str) -> None:
    with pytest.raises(NotFound, match=r"blob\.not_found"):
        store.get(Digest(name))
    assert store.size(Digest(name)) is None
    assert store.delete(Digest(name)) is False


def test_deleted_bytes_are_gone_and_may_come_again(store: BlobStore) -> None:
    digest = store.put(b"fleeting")

    assert store.delete(digest) is True

    assert store.size(digest) is None
    assert [] == list(store.digests())
    assert digest == store.put(b"fleeting")
    assert b"fleeting" == store.get(digest)


def test_a_missing_source_file_is_named(store: BlobStore, tmp_path: Path) -> None:
    with pytest.raises((NotFound, FileNotFoundError), match=r"nowhere\.bin"):
        store.put_file(tmp_path / "nowhere.bin")


def test_threads_that_put_the_same_bytes_all_succeed(store: BlobStore) -> None:
    found: list[Digest] = []

    def put_all() -> None:
        found.extend(store.put(bytes([number]) * 100) for number in range(8))

    threads = [threading.Thread(target=put_all) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert 32 == len(found)
    assert set(found) == set(store.digests())


def test_changed_bytes_are_not_given_out(damaged: tuple[BlobStore, Digest]) -> None:
    store, digest = damaged

    with pytest.raises(IntegrityError, match=r"blob\.corrupt"):
        store.get(digest)


def test_changed_bytes_fail_a_stream_at_its_end(damaged: tuple[BlobStore, Digest]) -> None:
    store, digest = damaged
    pieces: list[bytes] = []

    with pytest.raises(IntegrityError, match=r"blob\.corrupt"):
        pieces.extend(store.stream(digest))


def test_many_bytes_at_once_are_each_under_their_digest(store: BlobStore) -> None:
    items = [b"", b"a", b"a", b"b" * 70_000, *(bytes([n]) * n for n in range(2, 60))]

    digests = store.put_many(items)

    assert [content_digest(data) for data in items] == digests
    assert items == [store.get(digest) for digest in digests]
    assert [len(data) for data in items] == [store.size(digest) for digest in digests]
    assert items == [b"".join(store.stream(digest)) for digest in digests]
    assert sorted(set(digests)) == sorted(store.digests())
    assert digests == store.put_many(items)


def test_one_of_many_can_be_deleted_and_put_again(store: BlobStore) -> None:
    first, second, third = store.put_many([b"one", b"two", b"three"])

    assert store.delete(second)

    assert store.size(second) is None
    assert not store.delete(second)
    with pytest.raises(NotFound):
        store.get(second)
    assert (b"one", b"three") == (store.get(first), store.get(third))
    assert second not in set(store.digests())
    assert store.put_many([b"two", b"one"]) == [second, first]
    assert b"two" == store.get(second)


def test_bytes_that_come_in_pieces_are_stored_when_they_are_kept(store: BlobStore) -> None:
    with store.incoming() as incoming:
        for piece in (b"in ", b"", b"pieces"):
            incoming.write(piece)
        digest = incoming.keep(content_digest(b"in pieces"))

    assert b"in pieces" == store.get(digest)


def test_bytes_that_are_not_kept_or_not_the_expected_ones_leave_nothing(store: BlobStore) -> None:
    with store.incoming() as incoming:
        incoming.write(b"forgotten")
    with store.incoming() as other:
        other.write(b"other")
        with pytest.raises(InvalidInput, match="have the digest"):
            other.keep(ABSENT)

    assert [] == list(store.digests())


def test_size_and_age_of_bytes_are_known(store: BlobStore) -> None:
    before = datetime.now(UTC) - timedelta(seconds=2)
    digest = store.put(b"here")

    found = store.find(digest)

    assert found is not None
    assert (digest, 4) == (found.digest, found.size_bytes)
    assert before <= found.at <= datetime.now(UTC) + timedelta(seconds=2)
    assert [found] == list(store.stored())
    assert store.find(ABSENT) is None


def test_putting_bytes_again_makes_them_young(tmp_path: Path) -> None:
    store = LocalBlobStore(tmp_path / "blobs")
    digest = store.put(b"old")
    (path,) = [p for p in (tmp_path / "blobs").rglob("*") if p.is_file()]
    os.utime(path, (0, 0))
    source = tmp_path / "source"
    source.write_bytes(b"old")

    for is_file in (False, True):
        os.utime(path, (0, 0))
        _ = store.put_file(source) if is_file else store.put(b"old")
        found = store.find(digest)
        assert found is not None
        assert found.at.year > 1970


def test_bytes_in_packs_have_their_age_each(tmp_path: Path) -> None:
    store = LocalBlobStore(tmp_path / "blobs")
    first, second = store.put_many([b"one", b"two"])
    with sqlite3.connect(tmp_path / "blobs" / "packs" / "index.sqlite") as index:
        index.execute("UPDATE blob SET at = 0")
    index.close()

    store.put_many([b"two", b"three"])

    ages = {found.digest: found.at.year for found in store.stored()}
    assert 3 == len(ages)
    assert 1970 == ages[first]
    assert ages[second] > 1970
    store.put(b"one")
    found = store.find(first)
    assert found is not None
    assert found.at.year > 1970


def test_putting_old_bytes_into_a_bucket_again_makes_them_young(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_s3(request.getfixturevalue("moto_s3"), request.getfixturevalue("s3_bucket"))
    monkeypatch.setattr(s3, "RENEWED_AFTER", timedelta(seconds=-60))
    digest = store.put(b"old")
    before = store.find(digest)

    time.sleep(1.1)  # a bucket tells whole seconds
    store.put(b"old")

    after = store.find(digest)
    assert before is not None
    assert after is not None
    assert after.at > before.at
    assert b"old" == store.get(digest)


@pytest.mark.parametrize("data", [b"", b"given away", LARGE], ids=len)
def test_a_file_that_is_given_away_is_stored_as_its_bytes(
    store: BlobStore, tmp_path: Path, data: bytes
) -> None:
    path = tmp_path / "given.bin"
    path.write_bytes(data)

    digest = store.put_file(path, move=True)
    path.unlink()

    assert content_digest(data) == digest
    assert data == store.get(digest)
    assert [digest] == list(store.digests())
