"""What a project has put stays its own, however much that is and whichever process asks."""

from __future__ import annotations

from everloop.core.ids import ProjectId
from everloop.kernel.holdings import HeldBlob, Holdings, ProjectBlobs, forget_holders
from everloop.storage.memory_blobs import MemoryBlobStore
from tests.kit import world

OURS, THEIRS = ProjectId("ours"), ProjectId("theirs")


def test_more_than_a_process_remembers_is_written_down() -> None:
    kernel, whole = world().kernel, MemoryBlobStore()
    store = kernel.store
    first = Holdings(store.write, kernel.services.clock, most=3)
    puts = ProjectBlobs(whole, first, OURS, store.read)

    digests = [puts.put(bytes([number])) for number in range(6)]

    other = ProjectBlobs(whole, Holdings(store.write, kernel.services.clock), OURS, store.read)
    assert all(puts.is_held(digest) for digest in digests)
    assert [True] * 4 + [False] * 2 == [other.is_held(digest) for digest in digests]


def test_only_the_rows_of_bytes_that_are_gone_are_removed() -> None:
    kernel, whole = world().kernel, MemoryBlobStore()
    holdings = Holdings(kernel.store.write, kernel.services.clock)
    gone, kept = whole.put(b"gone"), whole.put(b"kept")
    with kernel.store.write() as tx:
        for project in (OURS, THEIRS):
            holdings.write(tx, project, [gone, kept])
        forget_holders(tx, gone)

    with kernel.store.read() as tx:
        assert {f"{kept}/ours", f"{kept}/theirs"} == {row.id for row in tx.select(HeldBlob)}
