"""An unmodified MLflow client against our server and against its own, one after the other.

Rows and their meaning are in docs/explanation/benchmarks.md.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from measure import Options, Report, parse_options, quantile, tell, workplace
from peers import Mlflow, find_mlflow
from processes import Started, everloop, free_port, run_once, running

TASKS = Path(__file__).with_name("client_tasks.py")
KEPT = (
    "Everloop: every answer is committed with synchronous=FULL and in the signed ledger, survives "
    "a power cut; MLflow: its SQLite store with full fsyncs, no ledger."
)


def main() -> None:
    """Measure and report."""
    options = parse_options(__doc__)
    peer = find_mlflow(options)
    if peer is None:
        tell("without the peer there is no client to measure with")
        return
    note = f"the client is {peer.name}'s for both; its server has one worker and SQLite"
    report = Report("tracking-client", options, peer=f"{peer.name} server", notes=note)
    with workplace() as folder:
        for subject, serve in (("everloop", our_server), ("peer", their_server)):
            place = folder / subject
            place.mkdir()
            with serve(place, peer) as (variables, server):
                _measure(report, options, peer, subject, place, variables)
                _row(report, "server memory after it", "MB").add(subject, server.memory_mb())
    report.close()


def _measure(  # noqa: PLR0917 -- what a benchmark needs
    report: Report,
    options: Options,
    peer: Mlflow,
    subject: str,
    folder: Path,
    variables: dict[str, str],
) -> None:
    def ask(task: str, **given: int) -> dict[str, list[float]]:
        tell(f"{task} against {subject}")
        command = [peer.python, str(TASKS), task, json.dumps(given)]
        _, told = run_once(command, folder=folder, variables=variables)
        found: dict[str, list[float]] = json.loads(told.splitlines()[-1])
        return found

    calls = ask("log_metric", count=50 if options.quick else 300)["each_s"]
    _row(report, "log_metric, one call, p50", "ms").add(subject, quantile(calls, 0.5) * 1e3)
    _row(report, "log_metric, one call, p99", "ms").add(subject, quantile(calls, 0.99) * 1e3)
    rate = _row(report, "log_metric in a loop", "calls/s", better="more")
    rate.add(subject, len(calls) / sum(calls))
    batches = ask("log_batch", count=3_000 if options.quick else 20_000)["each_s"]
    points = _row(report, "log_batch of 1,000", "points/s", better="more")
    points.add(subject, 1_000 * len(batches) / sum(batches))
    lives = ask("start_and_finish", count=10 if options.quick else 50)["each_s"]
    _row(report, "start and finish of a run, p50", "ms").add(subject, quantile(lives, 0.5) * 1e3)
    runs = 200 if options.quick else 2_000
    found = ask("search", runs=runs, count=10 if options.quick else 30)["each_s"]
    name = f"search {runs:,} runs x 20 x 20, filter and order, p50"
    _row(report, name, "ms").add(subject, quantile(found, 0.5) * 1e3)


def _row(report: Report, name: str, unit: str, *, better: str = "less"):  # type: ignore[no-untyped-def]
    for row in report.rows:
        if row.name == name:
            return row
    kept = "" if "memory" in name or "search" in name else KEPT
    return report.row(name, unit, "more" if better == "more" else "less", kept=kept)


@contextmanager
def our_server(folder: Path, peer: Mlflow) -> Iterator[tuple[dict[str, str], Started]]:
    run_once(everloop("init", "--name", "bench"), folder=folder)
    _, told = run_once(everloop("token", "create", "bench", "--json"), folder=folder)
    port = free_port()
    with running(everloop("up", "--port", str(port)), folder=folder) as server:
        server.seconds_to_answer(port, "/healthz")
        token = json.loads(told)["secret"]
        yield _client(peer, folder, port) | {"MLFLOW_TRACKING_TOKEN": token}, server


@contextmanager
def their_server(folder: Path, peer: Mlflow) -> Iterator[tuple[dict[str, str], Started]]:
    port = free_port()
    command = peer.server(folder, port)
    with running(command, folder=folder, variables=peer.variables) as server:
        server.seconds_to_answer(port, "/health")
        yield _client(peer, folder, port), server


def _client(peer: Mlflow, folder: Path, port: int) -> dict[str, str]:
    return peer.variables | {
        "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{port}",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "BENCH_FOLDER": str(folder),
    }


if __name__ == "__main__":
    main()
