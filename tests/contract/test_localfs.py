"""What is special about files: their rights, links in their way, and half-written ones."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from everloop.core.digest import content_digest
from everloop.core.errors import IntegrityError, Unavailable
from everloop.storage.files import ABANDONED_SECONDS, append_line
from everloop.storage.keyfile import load_or_create_key
from everloop.storage.localfs import LocalBlobStore


def place_of(folder: Path, data: bytes) -> Path:
    digits = content_digest(data).partition(":")[2]
    return folder / "blake3" / digits[:2] / digits[2:]


def test_blobs_and_their_folders_are_their_owners_alone(tmp_path: Path) -> None:
    LocalBlobStore(tmp_path / "blobs").put(b"secret")

    modes = {stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "blobs").rglob("*") if p.is_dir()}
    assert {0o700} == modes
    assert 0o600 == stat.S_IMODE(place_of(tmp_path / "blobs", b"secret").stat().st_mode)


def test_nothing_half_written_is_left(tmp_path: Path) -> None:
    store = LocalBlobStore(tmp_path / "blobs")
    (tmp_path / "source").write_bytes(b"from a file")

    store.put(b"data")
    store.put_file(tmp_path / "source")
    store.put(b"data")

    files = {p for p in (tmp_path / "blobs").rglob("*") if p.is_file()}
    assert {place_of(tmp_path / "blobs", d) for d in (b"data", b"from a file")} == files


@pytest.mark.parametrize("how", ["put", "put_file", "incoming"])
@pytest.mark.parametrize("data", [b"whole", b"w" * 3_000_000], ids=["small", "large"])
def test_a_blob_that_rotted_on_the_disk_is_healed_by_putting_it_again(
    how: str, data: bytes, tmp_path: Path
) -> None:
    store = LocalBlobStore(tmp_path / "blobs")
    digest = store.put(data)
    rotten = bytearray(data)
    rotten[-1] ^= 1
    place_of(tmp_path / "blobs", data).write_bytes(rotten)
    with pytest.raises(IntegrityError):
        store.get(digest)

    if how == "put":
        store.put(data)
    elif how == "put_file":
        (tmp_path / "source").write_bytes(data)
        store.put_file(tmp_path / "source")
    else:
        with store.incoming() as blob:
            blob.write(data)
            blob.keep()

    assert data == store.get(digest)


def test_a_blob_that_was_cut_off_is_healed_by_putting_it_again(tmp_path: Path) -> None:
    store = LocalBlobStore(tmp_path / "blobs")
    digest = store.put(b"whole")
    place_of(tmp_path / "blobs", b"whole").write_bytes(b"who")

    store.put(b"whole")

    assert b"whole" == store.get(digest)


def test_a_link_in_the_place_of_a_blob_is_not_followed(tmp_path: Path) -> None:
    store = LocalBlobStore(tmp_path / "blobs")
    digest = store.put(b"data")
    (tmp_path / "elsewhere").write_bytes(b"data")
    place = place_of(tmp_path / "blobs", b"data")
    place.unlink()
    place.symlink_to(tmp_path / "elsewhere")

    with pytest.raises(IntegrityError, match=r"blob\.corrupt"):
        store.get(digest)

    assert store.size(digest) is None
    assert [] == list(store.digests())


def test_a_link_in_the_place_of_a_folder_is_not_followed(tmp_path: Path) -> None:
    store = LocalBlobStore(tmp_path / "blobs")
    outside = tmp_path / "outside"
    outside.mkdir()
    place_of(tmp_path / "blobs", b"data").parent.symlink_to(outside)

    with pytest.raises(Unavailable, match=r"blob\.unavailable"):
        store.put(b"data")

    assert [] == list(outside.iterdir())


def test_what_killed_writers_left_is_swept_after_a_day(tmp_path: Path) -> None:
    LocalBlobStore(tmp_path)
    old, fresh = tmp_path / "blake3" / ".incoming-old", tmp_path / "blake3" / ".incoming-fresh"
    for path in (old, fresh):
        path.write_bytes(b"half")
    long_ago = fresh.stat().st_mtime - 2 * ABANDONED_SECONDS
    os.utime(old, (long_ago, long_ago))

    LocalBlobStore(tmp_path)

    assert (False, True) == (old.exists(), fresh.exists())


def test_lines_are_appended_whole(tmp_path: Path) -> None:
    path = tmp_path / "checkpoints.log"

    def append_all(text: str) -> None:
        for _ in range(20):
            append_line(path, text)

    threads = [threading.Thread(target=append_all, args=(f"{n}" * 200,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    lines = path.read_text().splitlines()
    assert 80 == len(lines)
    assert {f"{n}" * 200 for n in range(4)} == set(lines)
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)


def test_a_line_is_not_appended_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "log").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(Unavailable, match=r"file\.unavailable"):
        append_line(tmp_path / "log", "x")

    assert not (tmp_path / "elsewhere").exists()


# --- keys -----------------------------------------------------------------------------------------


def test_a_key_is_made_once_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "ledger.key"

    first = load_or_create_key(path, lambda n: b"\x07" * n)
    second = load_or_create_key(path, lambda n: b"\x08" * n)

    assert b"\x07" * 32 == first == second
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)
    assert [path] == list(path.parent.iterdir())


def test_threads_that_make_the_same_key_get_one(tmp_path: Path) -> None:
    found: list[bytes] = []
    threads = [
        threading.Thread(
            target=lambda: found.append(load_or_create_key(tmp_path / "k", os.urandom))
        )
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert 8 == len(found)
    assert 1 == len(set(found))


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_a_key_that_others_can_touch_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "ledger.key"
    load_or_create_key(path, os.urandom)
    path.chmod(mode)

    with pytest.raises(IntegrityError, match=r"key\.exposed") as refused:
        load_or_create_key(path, os.urandom)

    assert "chmod 600" in refused.value.hint


def test_a_key_behind_a_link_is_refused(tmp_path: Path) -> None:
    load_or_create_key(tmp_path / "real.key", os.urandom)
    (tmp_path / "ledger.key").symlink_to(tmp_path / "real.key")

    with pytest.raises(IntegrityError, match=r"key\.exposed"):
        load_or_create_key(tmp_path / "ledger.key", os.urandom)


@pytest.mark.parametrize("text", ["", "xyz", "00" * 31, "00" * 33, "gg" * 32])
def test_a_file_that_holds_no_key_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "ledger.key"
    path.write_text(text)
    path.chmod(0o600)

    with pytest.raises(IntegrityError, match=r"key\.malformed"):
        load_or_create_key(path, os.urandom)
