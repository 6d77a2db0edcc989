"""Files up and down: ours by our own client and by MLflow's, MLflow's server, and the disk itself.

Rows and their meaning are in docs/explanation/benchmarks.md.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench_client import TASKS, our_server, their_server
from blake3 import blake3
from measure import Report, Row, parse_options, tell, workplace
from peers import Mlflow, find_mlflow
from processes import Started, free_port, run_once, running

from everloop.app.client import connect
from everloop.app.tracking import start_run
from everloop.track.files import FindFile
from everloop.track.model import ArtifactEntry

GIGABYTE = 1 << 30
SMALL = 1_000
PIECE = 1 << 20
THIN_PIECE = 1 << 14
ANSWERER = Path(__file__).with_name("answer_at_once.py")
KEPT = (
    "Everloop: flushed to the disk under its digest before the answer, and in the ledger; "
    "MLflow: in the file system's cache; limit: written once and flushed; for small files, "
    "MLflow's client against a server that keeps nothing."
)


def main() -> None:
    """Measure and report."""
    options = parse_options(__doc__)
    peer = find_mlflow(options)
    if peer is None:
        tell("without the peer there is no client to measure with")
        return
    size = GIGABYTE >> 3 if options.quick else GIGABYTE
    report = Report("tracking-artifacts", options, peer=f"{peer.name} server")
    rows = Rows(report, size)
    with workplace() as folder:
        _measure_disk(rows, folder, size)
        _measure_parts(rows, size)
        _measure_client_alone(rows, peer, folder)
        place = folder / "everloop"
        place.mkdir()
        with our_server(place, peer) as (variables, server):
            _measure_ours(rows, place, variables, server, size)
            _measure_client(rows, "everloop", peer, variables, size)
            rows.memory.add("everloop", server.memory_mb())
        place = folder / "peer"
        place.mkdir()
        with their_server(place, peer) as (variables, server):
            _measure_client(rows, "peer", peer, variables, size)
            rows.memory.add("peer", server.memory_mb())
    report.close()


class Rows:
    """The rows, in their order."""

    def __init__(self, report: Report, size: int) -> None:
        name = f"{size >> 20:,} MiB"
        self.up = report.row(f"{name} up, own client", "MB/s", "more", kept=KEPT)
        self.down = report.row(f"{name} down, own client", "MB/s", "more")
        self.small = report.row(f"{SMALL:,} small files up, own client", "s", kept=KEPT)
        self.client_up = report.row(f"{name} up, MLflow's client", "MB/s", "more", kept=KEPT)
        self.client_down = report.row(f"{name} down, MLflow's client", "MB/s", "more")
        self.client_small = report.row(f"{SMALL:,} small files up, MLflow's client", "s", kept=KEPT)
        self.memory = report.row("server memory after it", "MB")
        self.hashed = report.row("hashed with BLAKE3, one core", "MB/s", "more")
        self.sent = report.row("through a loopback connection, 1 MiB at a time", "MB/s", "more")
        self.sent_thin = report.row("the same, 16 KiB as MLflow's client", "MB/s", "more")


def _measure_disk(rows: Rows, folder: Path, size: int) -> None:
    """Write and flush a file once; copy it, unflushed, as every client does that fetches one."""
    tell("the disk")
    path = folder / "disk.bin"
    piece = os.urandom(PIECE)

    def write() -> None:
        with path.open("wb") as file:
            for _ in range(size // PIECE):
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())

    def copy() -> None:
        with path.open("rb") as file, path.with_suffix(".copy").open("wb") as other:
            while read := file.read(PIECE):
                other.write(read)

    _speed((rows.up, rows.client_up), "limit", size, write)
    _speed((rows.down, rows.client_down), "limit", size, copy)
    path.unlink()
    path.with_suffix(".copy").unlink()


def _measure_parts(rows: Rows, size: int) -> None:
    """What each byte costs besides the disk: one digest, and one way over the loopback."""
    tell("digest and loopback")
    piece = os.urandom(PIECE)

    def digest() -> None:
        hasher = blake3()
        for _ in range(size // PIECE):
            hasher.update(piece)

    _speed((rows.hashed,), "limit", size, digest)
    _speed((rows.sent,), "limit", size, lambda: _through_loopback(piece, size, PIECE))
    _speed((rows.sent_thin,), "limit", size, lambda: _through_loopback(piece, size, THIN_PIECE))


def _through_loopback(data: bytes, size: int, at_once: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        writer = socket.create_connection(listener.getsockname())
        reader, _ = listener.accept()

    def write() -> None:
        with writer:
            for _ in range(size // at_once):
                writer.sendall(data[:at_once])

    thread = threading.Thread(target=write)
    thread.start()
    buffer = bytearray(PIECE)
    with reader:
        while reader.recv_into(buffer):
            pass
    thread.join()


def _measure_client_alone(rows: Rows, peer: Mlflow, folder: Path) -> None:
    """MLflow's client against somebody who only answers: below that no server can come."""
    tell("MLflow's client alone")
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    with running([sys.executable, str(ANSWERER), str(port)], folder=folder) as answerer:
        answerer.seconds_to_answer(port, "/")
        given = json.dumps({"address": address, "small": SMALL})
        variables = peer.variables | {"BENCH_FOLDER": str(folder)}
        command = [peer.python, str(TASKS), "put_small", given]
        _, told = run_once(command, folder=folder, variables=variables)
    rows.client_small.add("limit", *json.loads(told.splitlines()[-1])["up_small_s"])


def _measure_ours(
    rows: Rows, folder: Path, variables: dict[str, str], server: Started, size: int
) -> None:
    tell("own client")
    source, many, back = folder / "large.bin", folder / "many", folder / "back.bin"
    with source.open("wb") as file:
        for number in range(size // PIECE):
            file.write(number.to_bytes(8, "big") + os.urandom(PIECE - 8))
    many.mkdir()
    for number in range(SMALL):
        (many / f"{number}.txt").write_text(f"small {number}")
    url, token = variables["MLFLOW_TRACKING_URI"], variables["MLFLOW_TRACKING_TOKEN"]
    with connect(url, project="bench", token=token) as client:
        first = start_run("files", client=client)

        def up() -> None:
            first.log_artifact(source)
            _must_arrive(first.finish())

        _speed((rows.up,), "everloop", size, up)
        second = start_run("files", client=client)

        def up_small() -> None:
            second.log_artifacts(many, "many")
            _must_arrive(second.finish())

        rows.small.add("everloop", _time(up_small))
        found = client.perform("run.file", FindFile(run=first.id, path="large.bin"), ArtifactEntry)

        def down() -> None:
            with back.open("wb") as file:
                for piece in client.blobs.stream(found.digest):
                    file.write(piece)

        _speed((rows.down,), "everloop", size, down)
    tell(f"server memory {server.memory_mb():.0f} MB")


def _must_arrive(arrived: bool) -> None:
    if not arrived:
        message = "the files did not arrive"
        raise RuntimeError(message)


def _measure_client(
    rows: Rows, subject: str, peer: Mlflow, variables: dict[str, str], size: int
) -> None:
    tell(f"MLflow's client against {subject}")
    command = [peer.python, str(TASKS), "files", json.dumps({"size": size, "small": SMALL})]
    _, told = run_once(command, folder=Path(variables["BENCH_FOLDER"]), variables=variables)
    found = json.loads(told.splitlines()[-1])
    rows.client_up.add(subject, *(size / 1e6 / spent for spent in found["up_s"]))
    rows.client_down.add(subject, *(size / 1e6 / spent for spent in found["down_s"]))
    rows.client_small.add(subject, *found["up_small_s"])


def _speed(rows: tuple[Row, ...], subject: str, size: int, work: Callable[[], None]) -> None:
    spent = _time(work)
    for row in rows:
        row.add(subject, size / 1e6 / spent)


def _time(work: Callable[[], object]) -> float:
    at = time.perf_counter()
    work()
    return time.perf_counter() - at


if __name__ == "__main__":
    main()
