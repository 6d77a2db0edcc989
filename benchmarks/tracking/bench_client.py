"""An unmodified MLflow client against our server and against its own, one after the other.

Rows and their meaning are in docs/explanation/benchmarks.md.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from many_runs import EXPERIMENT, fill_mlflow, fill_sqlite, project_id
from measure import Options, Report, parse_options, quantile, tell, workplace
from peers import Mlflow, find_mlflow
from processes import Started, everloop, free_port, run_once, running

TASKS = Path(__file__).with_name("client_tasks.py")
LIMITS = (100, 1_000)


class Question(NamedTuple):
    """A search that MLflow's clients can ask for."""

    name: str
    filter: str
    order: str


QUESTIONS = (
    Question(
        "rare parameter and metric, by metric",
        "params.seed = '7' and metrics.m1 > 0.5",
        "metrics.m0 DESC",
    ),
    Question("metric in half, by start", "metrics.m1 > 0.5", "start_time DESC"),
    Question(
        "metric and parameter in a tenth, by metric",
        "metrics.m1 > 0.5 and params.model = 'xgb'",
        "metrics.m0 DESC",
    ),
    Question("metric in half, by parameter", "metrics.m1 > 0.5", "params.lr ASC"),
    Question("everything, by metric", "", "metrics.m0 DESC"),
)
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
    for count in (10_000,) if options.quick else (10_000, 100_000):
        with workplace() as folder:
            _search(report, options, peer, folder, count)
    report.close()


def _search(report: Report, options: Options, peer: Mlflow, folder: Path, count: int) -> None:
    """Fill both stores with the same runs, and search them through the same client."""
    for subject, serve in (("everloop", our_server), ("peer", their_server)):
        place = folder / subject
        place.mkdir()
        with serve(place, peer):
            pass  # it makes its database
        tell(f"{count:,} runs for {subject}")
        if subject == "everloop":
            database = place / ".everloop" / "everloop.db"
            fill_sqlite(database, count, project_id(database))
        else:
            fill_mlflow(place / "mlflow.db", count)
        with serve(place, peer) as (variables, _):
            # Among 100,000 runs MLflow takes minutes for each answer.
            asked = itertools.product(QUESTIONS, LIMITS)
            if count > 10_000:
                asked = itertools.product(QUESTIONS[:2], LIMITS[:1])
            for question, limit in asked:
                is_long = subject == "peer" and (count > 10_000 or limit > 100)
                often = options.rounds(5 if limit > 100 else 10) + 1
                given = {
                    "filter": question.filter,
                    "order": question.order,
                    "where": EXPERIMENT if subject == "everloop" else "0",
                    "limit": limit,
                    "count": 1 if is_long else often,
                }
                command = [peer.python, str(TASKS), "search", json.dumps(given)]
                _, told = run_once(command, folder=place, variables=variables)
                found = json.loads(told.splitlines()[-1])
                name = f"{count:,} runs, {limit:,} of them: {question.name}"
                for part, sample in (("", "each_s"), (", the answer alone", "bare_s")):
                    # The first answer warms up, where there are several.
                    spent = found[sample][1:] or found[sample]
                    _row(report, name + part, "ms").add(subject, *(1e3 * s for s in spent))
                tell(f"{name}: {found['found'][0]:.0f} runs for {subject}")


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


def _row(report: Report, name: str, unit: str, *, better: str = "less"):  # type: ignore[no-untyped-def]
    for row in report.rows:
        if row.name == name:
            return row
    kept = "" if "memory" in name or " of them: " in name else KEPT
    return report.row(name, unit, "more" if better == "more" else "less", kept=kept)


@contextmanager
def our_server(folder: Path, peer: Mlflow) -> Iterator[tuple[dict[str, str], Started]]:
    if not (folder / ".everloop").exists():
        run_once(everloop("init", "--name", "bench"), folder=folder)
    _, told = run_once(everloop("token", "create", f"b{free_port()}", "--json"), folder=folder)
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
