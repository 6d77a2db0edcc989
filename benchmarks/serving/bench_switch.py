"""From a promotion or a rollback to the first answer by the other version, under load.

A real project with its control plane, its ledger on the disk and its serving process; callers ask
without a pause, a fifth of them several rows at once. Rows and their meaning are in
docs/explanation/benchmarks.md.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from comparison import Comparison, Measure
from measure import parse_options, tell, workplace

from everloop.app.client import Client, connect, connect_home
from everloop.app.home import Home
from everloop.app.sdk import commit
from everloop.app.training import train
from everloop.core.ids import Id
from everloop.gate.verbs import EvaluateGate, WaiveGate
from everloop.kernel.tokens import CreateToken, NewToken
from everloop.loop.ports import TrainingJob
from everloop.registry.evidence import GateReport, Waiver
from everloop.registry.model import ModelVersion
from everloop.release.queries import DeploymentView, ReleaseView
from everloop.release.verbs import CreateDeployment, Rollback, StartRelease
from tests.parts.raw_http import RawLink, request
from tests.story.project import Project, make_project, wait_for, write_hours

VERB = Measure("the verb, durable", "ms")
ROUTED = Measure("its start to new routes", "ms")
SWITCH = Measure("new routes to the last old answer", "ms")
FIRST = Measure("its start to the first new answer", "ms")
LAST = Measure("to the last old answer", "ms")
RATE = Measure("load", "answers/s", is_less_better=False)
FAILED = Measure("failed", "answers")
MIXED = Measure("mixed", "answers")
MEASURES = (VERB, ROUTED, SWITCH, FIRST, LAST, RATE, FAILED, MIXED)
CALLERS, WAIT_S = 4, 20.0
SEED = 100


def main() -> None:
    """Measure and report."""
    options = parse_options(__doc__)
    told = Comparison("serving-switch", options, MEASURES)
    rounds = options.rounds(10)
    with workplace() as folder:
        project = _project(folder / "demand")
        with connect_home(Home(project.home)) as local:
            tell("training versions")
            versions = [_version(project, local, SEED + number) for number in range(rounds + 1)]
            make = CreateDeployment(name="demand", model="demand")
            local.perform("deployment.create", make, DeploymentView)
            _release(local, versions[0])
            ask = CreateToken(name="bench", days=1)
            token = local.perform("token.create", ask, NewToken).secret
        with project.up("--port", "0", "--no-loop"):
            _measure(told, project, token, versions)
    told.notes.append(
        "the verb is asked of the control plane over HTTP and returns when its change and its "
        "ledger entry are on the disk; promotions are all at once"
    )
    told.close()


def _measure(told: Comparison, project: Project, token: str, versions: list[ModelVersion]) -> None:
    serve = project.home / "serve" / "demand"
    wait_for((serve / "server.json").exists, "the server tells its address")
    control = connect(project.address(), project="demo", token=token)
    with control as client, _Load(project, token) as load:
        watch = _Watch(told, load, serve / "routes.json")
        wait_for(lambda: load.seen(versions[0].id), "the first version answers")
        for old, new in pairwise(versions):
            tell(f"from {old.number} to {new.number}")
            begin = time.time()
            _release(client, new)
            watch.record("promotion", begin, old.id, new.id)
            begin = time.time()
            client.perform("release.rollback", Rollback(deployment="demand"), DeploymentView)
            watch.record("rollback", begin, new.id, old.id)
            begin = time.time()
            _release(client, new)
            watch.record("promotion", begin, old.id, new.id)


class _Watch:
    """Reads off what a change of the routes did to the answers."""

    def __init__(self, told: Comparison, load: _Load, routes: Path) -> None:
        self._told = told
        self._load = load
        self._routes = routes

    def record(self, name: str, begin: float, old: Id, new: Id) -> None:
        """Add what the verb that began and has just returned did."""
        done, load = time.time(), self._load
        wait_for(lambda: load.first_since(new, begin), "the other version answers", WAIT_S)
        time.sleep(0.3)  # what was on its way
        routed = self._routes.stat().st_mtime
        first, last = load.first_since(new, begin), load.last_of(old)
        assert first is not None
        line = self._told.line(name, "everloop")
        line.add(VERB, 1e3 * (done - begin))
        line.add(ROUTED, 1e3 * (routed - begin))
        line.add(SWITCH, max(0.0, 1e3 * (last - routed)))
        line.add(FIRST, 1e3 * (first - begin))
        line.add(LAST, 1e3 * (last - begin))
        line.add(RATE, load.rate())
        line.add(FAILED, load.failed)
        line.add(MIXED, load.mixed)


class _Load:
    """Callers that ask without a pause, and what they were answered."""

    def __init__(self, project: Project, token: str) -> None:
        url = urlsplit(project.serving()["url"])
        self._at = str(url.hostname), int(url.port or 0)
        self._requests = [_request(url.path, token, rows) for rows in (1, 1, 1, 1, 5)]
        self._ending = threading.Event()
        self._began = time.time()
        self._firsts: dict[str, list[float]] = {}
        self._lasts: dict[str, float] = {}
        self._lock = threading.Lock()
        self.answered = self.failed = self.mixed = 0
        self._threads = [threading.Thread(target=self._call) for _ in range(CALLERS)]

    def __enter__(self) -> _Load:
        for each in self._threads:
            each.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        for each in self._threads:
            each.join()

    def seen(self, version: Id) -> bool:
        return version in self._lasts

    def first_since(self, version: Id, moment: float) -> float | None:
        """Return when this version began to answer, after some moment."""
        later = [at for at in self._firsts.get(version, ()) if at >= moment]
        return min(later, default=None)

    def last_of(self, version: Id) -> float:
        return self._lasts[version]

    def rate(self) -> float:
        return self.answered / (time.time() - self._began)

    def _call(self) -> None:
        turn, before = 0, ""
        link: RawLink | None = None
        while not self._ending.is_set():
            turn += 1
            try:
                link = link or RawLink(*self._at)
                link.send(self._requests[turn % len(self._requests)])
                answer = link.read()
            except (OSError, AssertionError):
                answer = None
            at = time.time()
            if answer is None or answer.status != 200:
                self.failed += 1
                if link is not None:
                    with suppress(OSError):
                        link.close()
                link = None
                continue
            versions = {each["version"] for each in json.loads(answer.body)["predictions"]}
            with self._lock:
                self.answered += 1
                self.mixed += len(versions) > 1
                version = versions.pop()
                self._lasts[version] = max(at, self._lasts.get(version, 0.0))
                if version != before:
                    self._firsts.setdefault(version, []).append(at)
            before = version


def _request(path: str, token: str, rows: int) -> bytes:
    inputs = [{"temperature": 12.5, "hour": 9}] * rows
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    body = json.dumps({"inputs": inputs}).encode()
    return request(path=f"{path}/predict" if path else "/v1/predict", body=body, headers=headers)


def _project(folder: Path) -> Project:
    made = make_project(folder)
    write_hours(made.folder / "hours.csv", first=0, count=400)
    write_hours(made.folder / "later.csv", first=400, count=150)
    with connect_home(Home(made.home)) as client:
        commit("hours", made.folder / "hours.csv", client=client)
        commit("hours-holdout", made.folder / "later.csv", client=client)
    return made


def _version(project: Project, client: Client, seed: int) -> ModelVersion:
    shown = [project.json("data", "show", name)["id"] for name in ("hours@1", "hours-holdout@1")]
    job = TrainingJob(
        key=f"job-{seed}",
        pipeline="story_training:train",
        model="demand",
        target="cnt",
        task="regression",
        training=Id(shown[0]),
        holdout=Id(shown[1]),
        time_column="at",
        seed=seed,
    )
    version = train(client, job)
    report = client.perform("gate.evaluate", EvaluateGate(version=version.id), GateReport)
    if not report.passed:
        client.perform("gate.waive", WaiveGate(version=version.id, why="a benchmark"), Waiver)
    return version


def _release(client: Client, version: ModelVersion) -> None:
    ask = StartRelease(deployment="demand", version=version.id, strategy="all_at_once")
    client.perform("release.start", ask, ReleaseView)


if __name__ == "__main__":
    main()
