"""What packs of small blobs promise beyond the port: one file, space back, an index to lose."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from everloop.core.digest import content_digest
from everloop.core.errors import IntegrityError, NotFound
from everloop.storage.localfs import LocalBlobStore
from everloop.storage.packs import INDEX, SUFFIX

ITEMS = [os.urandom(9_000) for _ in range(20)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    LocalBlobStore(tmp_path).put_many(ITEMS)
    return tmp_path / "packs"


def lose_index(folder: Path) -> None:
    for path in folder.glob(f"{INDEX}*"):
        path.unlink()


def test_small_blobs_that_come_together_make_one_file(folder: Path) -> None:
    assert 1 == len(list(folder.glob(f"*{SUFFIX}")))
    assert [] == [path for path in (folder.parent / "blake3").rglob("*") if path.is_file()]


def test_an_index_that_is_lost_is_made_anew_without_what_was_deleted(folder: Path) -> None:
    gone = content_digest(ITEMS[3])
    assert LocalBlobStore(folder.parent).delete(gone)
    lose_index(folder)

    store = LocalBlobStore(folder.parent)

    kept = [data for data in ITEMS if content_digest(data) != gone]
    assert kept == [store.get(content_digest(data)) for data in kept]
    assert store.size(gone) is None


def test_deleting_gives_the_disk_its_space_back(folder: Path) -> None:
    store = LocalBlobStore(folder.parent)
    (pack,) = folder.glob(f"*{SUFFIX}")
    before = pack.stat().st_blocks
    start, size = next(
        (at, len(data)) for data in ITEMS[:1] for at in [pack.read_bytes().index(data)]
    )

    for data in ITEMS[:10]:
        store.delete(content_digest(data))

    assert pack.stat().st_blocks <= before * 0.75
    assert bytes(size) == pack.read_bytes()[start : start + size]
    for data in ITEMS[10:]:
        store.delete(content_digest(data))
    assert [] == list(folder.glob(f"*{SUFFIX}"))


def test_changed_bytes_in_a_pack_are_found(folder: Path) -> None:
    (pack,) = folder.glob(f"*{SUFFIX}")
    data = bytearray(pack.read_bytes())
    data[data.index(ITEMS[0])] ^= 1
    pack.write_bytes(data)
    store = LocalBlobStore(folder.parent)

    with pytest.raises(IntegrityError):
        store.get(content_digest(ITEMS[0]))
    assert ITEMS[1] == store.get(content_digest(ITEMS[1]))


def test_a_right_put_heals_what_a_pack_has_wrong(folder: Path) -> None:
    (pack,) = folder.glob(f"*{SUFFIX}")
    data = bytearray(pack.read_bytes())
    data[data.index(ITEMS[0])] ^= 1
    pack.write_bytes(data)
    store = LocalBlobStore(folder.parent)

    store.put(ITEMS[0])

    assert ITEMS[0] == store.get(content_digest(ITEMS[0]))


def test_a_damaged_pack_does_not_keep_the_store_from_opening(folder: Path) -> None:
    (folder / f"{'0' * 32}{SUFFIX}").write_bytes(b"not a pack")
    lose_index(folder)

    assert ITEMS[0] == LocalBlobStore(folder.parent).get(content_digest(ITEMS[0]))


def test_another_process_finds_what_was_packed_after_it_opened(tmp_path: Path) -> None:
    reader = LocalBlobStore(tmp_path)
    with pytest.raises(NotFound):
        reader.get(content_digest(b"x1"))
    program = (
        "import sys; from pathlib import Path; from everloop.storage.localfs import LocalBlobStore;"
        "LocalBlobStore(Path(sys.argv[1])).put_many([b'x1', b'x2'])"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True)

    assert b"x1" == reader.get(content_digest(b"x1"))


def test_many_right_puts_heal_what_a_pack_has_wrong(folder: Path) -> None:
    (pack,) = folder.glob(f"*{SUFFIX}")
    data = bytearray(pack.read_bytes())
    data[data.index(ITEMS[0])] ^= 1
    pack.write_bytes(data)
    store = LocalBlobStore(folder.parent)

    store.put_many(ITEMS)

    assert ITEMS == [store.get(content_digest(item)) for item in ITEMS]


@pytest.mark.parametrize("killed_at", ["before", "after"])
def test_a_deletion_that_is_killed_leaves_no_name_without_its_bytes(
    folder: Path, killed_at: str
) -> None:
    program = (
        "import os, sys; from pathlib import Path\n"
        "from everloop.storage import packs; from everloop.storage.localfs import LocalBlobStore\n"
        "erase = packs.Packs._erase\n"
        "def killed(self, *where):\n"
        "    sys.argv[3] == 'after' and erase(self, *where)\n"
        "    os.kill(os.getpid(), 9)\n"
        "packs.Packs._erase = killed\n"
        "LocalBlobStore(Path(sys.argv[1])).delete(sys.argv[2])\n"
    )
    gone = content_digest(ITEMS[3])
    arguments = [sys.executable, "-c", program, str(folder.parent), gone, killed_at]
    assert -9 == subprocess.run(arguments, check=False).returncode

    store = LocalBlobStore(folder.parent)

    assert store.size(gone) is None
    (pack,) = folder.glob(f"*{SUFFIX}")
    assert ITEMS[3] not in pack.read_bytes()
    store.put_many(ITEMS)
    assert ITEMS == [store.get(content_digest(item)) for item in ITEMS]


def test_blobs_that_come_again_while_their_pack_goes_are_kept(folder: Path) -> None:
    store = LocalBlobStore(folder.parent)
    (before,) = folder.glob(f"*{SUFFIX}")

    for item in ITEMS:
        store.delete(content_digest(item))
    store.put_many(ITEMS)

    assert [before] != list(folder.glob(f"*{SUFFIX}"))
    assert ITEMS == [store.get(content_digest(item)) for item in ITEMS]
