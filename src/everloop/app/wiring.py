"""Puts a kernel together from concrete storage: SQLite and a folder, or PostgreSQL and S3."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from everloop.app.home import Home
from everloop.app.policy import load_policy
from everloop.app.verbs import load_verbs
from everloop.core.clock import Clock, SystemClock
from everloop.core.errors import InvalidInput
from everloop.core.events import Event
from everloop.core.ids import IdSource
from everloop.core.ports import BlobStore, MetadataStore
from everloop.core.records import declared_kinds
from everloop.kernel.ledger import log
from everloop.kernel.perform import Kernel
from everloop.kernel.signing import Ed25519Signer
from everloop.kernel.unit_of_work import Services

DATABASE_VARIABLE = "EVERLOOP_DATABASE"
BLOBS_VARIABLE = "EVERLOOP_BLOBS"
SIGNERS = ("ledger", "evaluator")
ORIGIN = "everloop/ledger"


def open_kernel(home: Home, *, clock: Clock | None = None) -> Kernel:
    """Return a kernel over the home's storage, migrated to the present schema.

    ``EVERLOOP_DATABASE`` (``postgresql+psycopg://...``) and ``EVERLOOP_BLOBS`` (``s3://bucket``)
    replace the SQLite file and the blob folder.

    Raises:
        InvalidInput: the home folder or a variable is unusable.
        Unavailable: the database does not answer.
        Conflict: the database was written by a newer version.
    """
    load_verbs()
    home.create()
    time = clock or SystemClock()
    services = Services(
        clock=time,
        ids=IdSource(lambda: int(time.now().timestamp() * 1000), os.urandom),
        blobs=_open_blobs(home, os.environ.get(BLOBS_VARIABLE)),
        signers={name: _open_signer(home.keys, name) for name in SIGNERS},
        policy=load_policy(home),
        random_bytes=os.urandom,
    )
    kernel = Kernel(_open_store(home, os.environ.get(DATABASE_VARIABLE)), services, origin=ORIGIN)
    kernel.subscribe(anchor_checkpoints(kernel, home.anchor))
    return kernel


def anchor_checkpoints(kernel: Kernel, path: Path) -> Callable[[Event], None]:
    """Return a listener that appends the newest checkpoint to a file outside the database."""
    from everloop.storage.files import append_line

    def keep(event: Event) -> None:
        del event
        with kernel.store.read() as tx:
            latest = tx.find(log.LedgerCheckpoint, log.LATEST)
        if latest is not None:
            append_line(path, latest.note)

    return keep


def _open_store(home: Home, url: str | None) -> MetadataStore:
    kinds = declared_kinds()
    if url is None:
        from everloop.storage.sqlite import SqliteMetadataStore

        return SqliteMetadataStore(home.database, kinds)
    if not url.startswith("postgresql"):
        raise InvalidInput(
            "database.unknown",
            f"{DATABASE_VARIABLE} names neither SQLite nor PostgreSQL.",
            hint="Write postgresql+psycopg://user@host/database, or unset it for SQLite.",
        )
    from everloop.storage.postgres import PostgresMetadataStore

    return PostgresMetadataStore(url, kinds)


def _open_blobs(home: Home, url: str | None) -> BlobStore:
    if url is None:
        from everloop.storage.localfs import LocalBlobStore

        return LocalBlobStore(home.blobs)
    from everloop.storage.s3 import S3BlobStore

    return S3BlobStore(url)


def _open_signer(folder: Path, name: str) -> Ed25519Signer:
    from everloop.storage.keyfile import load_or_create_key

    return Ed25519Signer(name, load_or_create_key(folder / f"{name}.key", os.urandom))
