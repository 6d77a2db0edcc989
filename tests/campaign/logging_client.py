"""A training that logs until it is told to stop, and writes down what it was promised.

    python logging_client.py NOTES STOP SEED [RUN]

A note is written by one system call after the promise, so it survives a kill of this process.
"""

from __future__ import annotations

import json
import mmap
import os
import random
import sys
import time
from pathlib import Path

from everloop.app.client import connect
from everloop.app.tracking import start_run

PATIENCE_S = 0.002


def main() -> None:
    """Log a counter, with a flush and a note now and then; end the run when the file appears."""
    notes = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    stop, rng = Path(sys.argv[2]), random.Random(int(sys.argv[3]))

    def note(**told: object) -> None:
        os.write(notes, json.dumps(told).encode() + b"\n")

    resume = sys.argv[4] if len(sys.argv) > 4 else None
    run = start_run("kills", resume=resume, client=connect(), system_metrics=False)
    key = f"count {os.getpid()} {time.monotonic_ns()}"
    # A mapped file survives a kill without a system call: it holds how many points were logged.
    seen = Path(f"{sys.argv[1]}.{os.getpid()}")
    seen.write_bytes(bytes(8))
    with seen.open("r+b") as file:
        logged = mmap.mmap(file.fileno(), 8)
    count, files = 0, list[str]()
    note(run=run.id, key=key, count=count, files=files, seen=str(seen))
    while not stop.exists():
        for _ in range(rng.randrange(1, 400)):
            run.log_metric(key, count, count)
            count += 1
            logged[:] = count.to_bytes(8, "little")
        if rng.random() < 0.02:
            name = f"{key}/{count}.bin"
            run.log_artifact(rng.randbytes(2_000) + name.encode(), name)
            files.append(name)
        if rng.random() < 0.2:
            run.flush()
            note(run=run.id, key=key, count=count, files=files, seen=str(seen))
        time.sleep(PATIENCE_S)
    arrived = run.finish()
    note(run=run.id, key=key, count=count, files=files, seen=str(seen), arrived=arrived)


if __name__ == "__main__":
    main()
