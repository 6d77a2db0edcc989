"""A world with something on every page, and ways to look at the pages of it."""

from __future__ import annotations

import asyncio
import math
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import httpx
import msgspec
import pyarrow as pa
import uvicorn

from everloop.app.verbs import load_verbs
from everloop.core.ids import Id, ProjectId
from everloop.core.ports import Transaction, where
from everloop.data.snapshot import commit_table
from everloop.http.application import create_app
from everloop.http.guard import App
from everloop.kernel.authz import Caller, Project
from everloop.kernel.bootstrap import OWNER, local_caller
from everloop.kernel.perform import Call, Kernel
from everloop.kernel.tokens import CreateLoginLink, NewToken, OpenSession
from everloop.loop.model import LoopRun, LoopState, LoopTransition
from everloop.monitor.model import Alert, AlertKind, AlertState, LossPoint
from everloop.registry.model import ModelVersion
from everloop.release.queries import ReleaseView
from everloop.track import columns
from everloop.track.model import Run
from everloop.track.verbs import (
    FinishRun,
    LogRun,
    MetricSeries,
    RunFinished,
    RunLogged,
    RunStarted,
    StartRun,
)
from everloop.ui.pages import page_routes
from everloop.ui.session import COOKIE
from tests.kit import PROJECT, World
from tests.unit.release.released import Released, traffic

load_verbs()
NONE = Id("")
ORIGIN = "http://127.0.0.1"
HOSTS = frozenset({"127.0.0.1"})


def app_of(kernel: Kernel) -> App:
    """Return the whole application as the server mounts it."""
    return create_app(kernel, version="test", hosts=HOSTS, pages=page_routes(kernel))


def login_code(world: World, caller: Caller | None = None) -> str:
    """Return the one-time secret of a fresh login link."""
    who = caller or local_caller(world.kernel, OWNER)
    answer = world.kernel.perform(
        Call(verb="login.create", caller=who, ask=CreateLoginLink(), project=PROJECT)
    )
    assert isinstance(answer, NewToken)
    return answer.secret


def session_of(world: World, caller: Caller | None = None) -> str:
    """Return the secret of an open session."""
    ask = OpenSession(secret=login_code(world, caller))
    answer = world.kernel.perform(
        Call(verb="login.open", caller=local_caller(world.kernel, OWNER), ask=ask)
    )
    assert isinstance(answer, NewToken)
    return answer.secret


@dataclass
class Reader:
    """A browser without a screen: it sends the cookie and follows nothing."""

    app: App
    cookie: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    base: str = ORIGIN

    def get(self, path: str) -> httpx.Response:
        """Open a page."""
        return self._send("GET", path, None)

    def post(self, path: str, form: dict[str, str]) -> httpx.Response:
        """Send a form as a page of the same origin does."""
        return self._send("POST", path, form)

    def csrf(self, path: str) -> str:
        """Return the token that the forms of a page carry."""
        found = re.search(r'name="csrf" value="([0-9a-f]{64})"', self.get(path).text)
        assert found is not None
        return found[1]

    def _send(self, method: str, path: str, form: dict[str, str] | None) -> httpx.Response:
        async def send() -> httpx.Response:
            cookies = {COOKIE: self.cookie} if self.cookie else None
            transport = httpx.ASGITransport(app=self.app)
            async with httpx.AsyncClient(
                transport=transport, base_url=self.base, cookies=cookies
            ) as client:
                origin = {"origin": self.base} if method == "POST" else {}
                return await client.request(method, path, data=form, headers=origin | self.headers)

        return asyncio.run(send())


@dataclass
class Filled:
    """A project in the middle of its life: data, runs, versions, releases, alerts, a loop run."""

    released: Released = field(default_factory=Released)
    text: str = "plain"
    versions: list[ModelVersion] = field(default_factory=list)
    runs: list[Id] = field(default_factory=list)
    live: ReleaseView | None = None
    alert: Id = NONE
    turn: Id = NONE

    def __post_init__(self) -> None:
        self._data()
        self.runs = [self._run(number) for number in range(3)]
        self.versions = [self.released.version(shift) for shift in (1, 2, 3)]
        for version in self.versions[:2]:
            self.released.champion(version)
        seen = self.released.start(self.versions[2], strategy="canary")
        self.live = self.released.observe(seen, traffic(80, 20))
        self._rows()

    @property
    def world(self) -> World:
        return self.released.world

    @property
    def deployment(self) -> Id:
        return self.released.deployment().deployment.id

    @property
    def experiment(self) -> Id:
        """The experiment of the runs."""
        with self.world.kernel.store.read() as tx:
            return tx.select(Run, *where(id=self.runs[0]))[0].experiment

    def reader(self) -> Reader:
        """Return a logged-in owner."""
        return Reader(app_of(self.world.kernel), session_of(self.world))

    def _data(self) -> None:
        hours = list(range(400))
        table = pa.table(
            {
                "temperature": [15 + 10 * math.sin(hour / 24) for hour in hours],
                "hour": [hour % 24 for hour in hours],
                "weather": [("clear", "mist", self.text)[hour % 3] for hour in hours],
            }
        )
        commit_table(self.world.owner, "bike", table, message=self.text)

    def _run(self, number: int) -> Id:
        run = self.world.kernel.services.ids.new()
        start = StartRun(
            run=run,
            name=f"fit {number} {self.text}",
            experiment="demand",
            params={"rate": str(number / 10), self.text: self.text},
            tags={"note": self.text},
        )
        self.world.owner.perform("run.start", start, RunStarted)
        values = [1 / (step + 1) + number / 10 for step in range(50)]
        data = columns.encode(columns.to_columns(range(50), range(50), values))
        series = tuple(MetricSeries(key=key, data=data) for key in ("loss", f"m {self.text}"))
        self.world.owner.perform("run.log", LogRun(run=run, metrics=series), RunLogged)
        self.world.owner.perform("run.finish", FinishRun(run=run), RunFinished)
        return run

    def _rows(self) -> None:
        ids, now = self.world.kernel.services.ids, self.world.clock.now()
        with self.world.kernel.store.write() as tx:
            project = ProjectId(tx.select(Project, *where(name="demo"))[0].id)
            shared = {"project": project, "deployment": self.deployment}
            for number in range(20):
                point = {
                    "id": ids.new(),
                    "number": number + 1,
                    "version": self.versions[number // 12].id,
                    "at": now + timedelta(days=number),
                    "mean_loss": 20 + number % 12,
                    "bad_share": 0.1,
                    "evidence": 0.0,
                    "alarmed": False,
                }
                tx.insert(msgspec.convert(shared | point, LossPoint))
            self.alert, self.turn = ids.new(), ids.new()
            tx.insert(
                Alert(
                    id=self.alert,
                    version=self.versions[0].id,
                    kind=AlertKind.LOSS,
                    at=now,
                    raised_at=now,
                    subject="loss_point:1",
                    summary=f"Losses doubled {self.text}",
                    columns=(self.text,),
                    state=AlertState.OPEN,
                    project=project,
                    deployment=self.deployment,
                )
            )
            self._turn(tx, project)

    def _turn(self, tx: Transaction, project: ProjectId) -> None:
        ids, now = self.world.kernel.services.ids, self.world.clock.now()
        run = LoopRun(
            id=self.turn,
            model="demand",
            live=None,
            state=LoopState.PROMOTED,
            cause=f"alert:{self.alert}",
            caused_at=now,
            started_at=now,
            updated_at=now,
            ended_at=now,
            attempt=1,
            transitions=2,
            training=None,
            holdout=None,
            version=self.versions[1].id,
            report=None,
            release=None,
            why=f"Proven {self.text}",
            project=project,
            deployment=self.deployment,
        )
        tx.insert(run)
        steps = ((None, LoopState.TRIGGERED), (LoopState.TRIGGERED, LoopState.TRAINING))
        for seq, (before, after) in enumerate(steps):
            step = LoopTransition(
                id=ids.new(),
                project=project,
                run=self.turn,
                seq=seq,
                before=before,
                after=after,
                fence=1,
                at=now,
                made_at=now,
                why=f"Because {self.text}",
            )
            tx.insert(step)


@contextmanager
def served(kernel: Kernel) -> Iterator[str]:
    """Serve the application on a free port of this machine; yield its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    config = uvicorn.Config(app_of(kernel), host="127.0.0.1", port=port, log_level="error")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        for _ in range(100):
            try:
                if httpx.get(f"http://127.0.0.1:{port}/healthz").status_code == 200:
                    break
            except httpx.TransportError:
                thread.join(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(10)
