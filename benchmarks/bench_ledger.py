"""What a recorded change costs, and how fast the record of changes is verified.

Rows and their meaning are in docs/explanation/benchmarks.md.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from measure import Options, Report, parse_options, tell, time_of, workplace
from peers import Mlflow, find_mlflow
from processes import everloop, run_once

from everloop.app.home import Home
from everloop.app.verbs import load_verbs
from everloop.app.wiring import open_kernel
from everloop.core.clock import SystemClock
from everloop.core.ids import IdSource, ProjectId
from everloop.core.ports import MetadataStore
from everloop.core.records import declared_kinds
from everloop.kernel.admin import CreateProject, ProjectView
from everloop.kernel.bootstrap import OWNER, local_caller
from everloop.kernel.ledger import log
from everloop.kernel.ledger.export import export_bundle
from everloop.kernel.ledger.verify_standalone import verify_bundle
from everloop.kernel.perform import Kernel
from everloop.kernel.performer import LocalPerformer
from everloop.kernel.safe_load import LoadPolicy
from everloop.kernel.signing import Ed25519Signer
from everloop.kernel.unit_of_work import Services
from everloop.storage.memory import MemoryMetadataStore
from everloop.storage.memory_blobs import MemoryBlobStore
from everloop.storage.sqlite import SqliteMetadataStore
from everloop.track.verbs import RunStarted, StartRun

PROJECT = "bench"
VERBS = 200
ENTRIES = 50_000
APPENDS = 2_000
SALT = b"\x05" * 32
KEPT_VERB = (
    "each call survives a power cut when it returns: one commit with synchronous=FULL "
    "(WAL; MLflow: rollback journal). Ours also writes lineage, a ledger entry, its tree nodes "
    "and a signed checkpoint in that commit, and then syncs the checkpoint into a file outside "
    "the database; MLflow keeps no such record."
)


def main() -> None:
    """Measure and report."""
    options = parse_options(__doc__)
    peer = find_mlflow(options)
    report = Report("ledger", options, peer=peer.name if peer else "")
    load_verbs()
    with workplace() as folder:
        measure_verbs(report, options, peer, folder)
        measure_appends(report, options, folder)
        measure_verification(report, options, folder)
    report.close()


def measure_verbs(report: Report, options: Options, peer: Mlflow | None, folder: Path) -> None:
    """Count ``run.start`` a second: durable, in memory, and the bare commits of as many rows."""
    durable = report.row("run.start, SQLite", "calls/s", "more", kept=KEPT_VERB)
    memory = report.row(
        "run.start, in memory",
        "calls/s",
        "more",
        kept="nothing is kept: what the kernel itself costs.",
    )
    run_once(everloop("init", "--name", PROJECT), folder=folder)
    count = VERBS // 4 if options.quick else VERBS
    kernel = open_kernel(Home(folder / ".everloop"))
    try:
        written = _written_by_one(kernel, folder / ".everloop" / "everloop.db")
        report.notes.append(
            f"one run.start writes {written.rows} rows, {written.wal_bytes:,} bytes of WAL"
        )
        for number in range(options.rounds(5)):
            tell(f"durable calls, round {number + 1}")
            durable.add("everloop", _calls_a_second(kernel, count))
            durable.add("limit", _bare_commits(folder / "limit.db", count, written))
            if peer is not None and number < options.rounds(2):
                store_url = f"sqlite:///{folder}/mlflow.db"
                found = peer.task("start_runs", folder, store=store_url, count=count)
                durable.add("peer", *found["rate"])
    finally:
        kernel.store.close()
    for _ in range(options.rounds(5)):
        memory.add("everloop", _calls_a_second(_kernel_in_memory(), count))


@dataclass(frozen=True)
class Written:
    """What one call leaves in the database."""

    rows: int
    wal_bytes: int


def _written_by_one(kernel: Kernel, path: Path) -> Written:
    _start_run(kernel, 0)  # makes the experiment, which later calls find
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        before = _rows(database)
    _start_run(kernel, 1)
    size = path.with_name(f"{path.name}-wal").stat().st_size
    with closing(sqlite3.connect(path)) as database:
        return Written(rows=_rows(database) - before, wal_bytes=size)


def _rows(database: sqlite3.Connection) -> int:
    names = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    return sum(
        database.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for (name,) in names
    )


def _calls_a_second(kernel: Kernel, count: int) -> float:
    performer = _performer(kernel)
    begin = time.perf_counter()
    for _ in range(count):
        ask = StartRun(run=kernel.services.ids.new(), experiment="calls", tags={"a": "b"})
        performer.perform("run.start", ask, RunStarted)
    return count / (time.perf_counter() - begin)


def _start_run(kernel: Kernel, number: int) -> None:
    ask = StartRun(run=kernel.services.ids.new(), experiment="calls", tags={"n": str(number)})
    _performer(kernel).perform("run.start", ask, RunStarted)


def _performer(kernel: Kernel) -> LocalPerformer:
    return LocalPerformer(kernel, local_caller(kernel, OWNER), PROJECT)


def _kernel_on(store: MetadataStore) -> Kernel:
    clock = SystemClock()
    services = Services(
        clock=clock,
        ids=IdSource(lambda: int(clock.now().timestamp() * 1_000), os.urandom),
        blobs=MemoryBlobStore(),
        signers={name: Ed25519Signer(name, os.urandom(32)) for name in ("ledger", "evaluator")},
        policy=LoadPolicy(),
        random_bytes=os.urandom,
    )
    kernel = Kernel(store, services, origin="bench/ledger")
    _performer(kernel).perform("project.create", CreateProject(name=PROJECT), ProjectView)
    return kernel


def _kernel_in_memory() -> Kernel:
    return _kernel_on(MemoryMetadataStore(declared_kinds()))


@contextmanager
def _kernel_on_disk(path: Path) -> Iterator[Kernel]:
    store = SqliteMetadataStore(path, declared_kinds())
    try:
        yield _kernel_on(store)
    finally:
        store.close()


def _bare_commits(path: Path, count: int, written: Written) -> float:
    """Return the commits a second of the same number of rows and about the same bytes."""
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    database.execute("CREATE TABLE IF NOT EXISTS row (id INTEGER PRIMARY KEY, text TEXT)")
    text = "x" * 300
    begin = time.perf_counter()
    for _ in range(count):
        database.execute("BEGIN IMMEDIATE")
        database.executemany("INSERT INTO row (text) VALUES (?)", [(text,)] * written.rows)
        database.execute("COMMIT")
    spent = time.perf_counter() - begin
    database.close()
    return count / spent


def measure_appends(report: Report, options: Options, folder: Path) -> None:
    """Time ledger entries by themselves, many in one commit; the floor is one signature each."""
    row = report.row(f"one ledger entry, {APPENDS:,} in one commit", "us")
    for number in range(options.rounds(5)):
        with _kernel_on_disk(folder / f"appends-{number}.db") as kernel:
            spent = time_of(lambda kernel=kernel: _append(kernel, APPENDS))  # type: ignore[misc]
            row.add("everloop", 1e6 * spent / APPENDS)
            signer = kernel.services.signers["ledger"]
        begin = time.perf_counter()
        for entry in range(APPENDS):
            hashlib.sha256(b"%d" % entry).digest()
            signer.sign(b"x" * 200)
        row.add("limit", 1e6 * (time.perf_counter() - begin) / APPENDS)


def _append(kernel: Kernel, count: int) -> None:
    signer = kernel.services.signers["ledger"]
    actor = local_caller(kernel, OWNER).actor
    with kernel.store.write() as tx:
        for number in range(count):
            name = f"thing:{number}"
            draft = log.EntryDraft(
                at=kernel.services.clock.now(),
                actor=actor,
                on_behalf_of=None,
                project=ProjectId(""),
                action="bench.append",
                resource=name,
                outcome="ok",
                reason_code=None,
                refs=(name,),
                request=f"bench-{number}",
                policy="bench:write",
                payload={"changes": [], "verb": "bench.append", "number": number},
            )
            log.append(tx, draft, salt=SALT, signer=signer, origin=kernel.origin)


def measure_verification(report: Report, options: Options, folder: Path) -> None:
    """Time the stand-alone verifier over an exported ledger; the floor is hashing its bytes."""
    count = ENTRIES // 10 if options.quick else ENTRIES
    row = report.row(f"verify an export of {count:,} entries", "entries/s", "more")
    tell(f"making {count:,} ledger entries")
    with _exported(folder / "export", count) as bundle:
        size = sum(file.stat().st_size for file in bundle.rglob("*") if file.is_file())
        report.notes.append(f"the export of {count:,} entries has {size / 1e6:.1f} MB")
        for number in range(options.rounds(3)):
            tell(f"verifying, round {number + 1}")
            begin = time.perf_counter()
            found = verify_bundle(bundle)
            spent = time.perf_counter() - begin
            if not found.ok or found.size < count:
                message = f"the export does not verify: {found.findings[:3]}"
                raise RuntimeError(message)
            row.add("everloop", found.size / spent)
            row.add("limit", found.size / time_of(lambda: _hash_all(bundle)))


@contextmanager
def _exported(folder: Path, count: int) -> Iterator[Path]:
    folder.mkdir()
    with _kernel_on_disk(folder / "ledger.db") as kernel:
        _append(kernel, count)
        public_key = kernel.services.signers["ledger"].public_key
        with kernel.store.read() as tx:
            now = kernel.services.clock.now()
            bundle = export_bundle(tx, folder / "bundle", public_key=public_key, created=now)
    try:
        yield bundle
    finally:
        shutil.rmtree(folder)


def _hash_all(folder: Path) -> None:
    """Hash every line of the export and, as the tree does, one pair of hashes an entry."""
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            for line in file.read_bytes().split(b"\n"):
                leaf = hashlib.sha256(line).digest()
                hashlib.sha256(leaf + leaf).digest()


if __name__ == "__main__":
    main()
