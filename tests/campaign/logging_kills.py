"""Kills a logging training and its server at random moments, and checks what must hold."""

from __future__ import annotations

import json
import random
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from everloop.app.client import connect_home
from everloop.app.home import Home
from everloop.core.digest import parse_digest
from everloop.core.ids import Id
from everloop.govern.exporting import LedgerVerdict, VerifyLedger
from everloop.kernel.bootstrap import OWNER, local_caller
from everloop.kernel.tokens import CreateToken, NewToken
from everloop.kernel.unit_of_work import View
from everloop.track.model import ArtifactEntry, Run, RunStatus
from everloop.track.queries import RunDetails, ShowRun
from everloop.track.series import read_series
from tests.story.project import clean_environment, make_project

CLIENT = Path(__file__).with_name("logging_client.py")
ROOT = Path(__file__).resolve().parents[2]
LONGEST_LIFE_S = 1.5
PATIENCE_S = 60.0


@dataclass
class Kills:
    """One server, one training after another, and what was done to them."""

    folder: Path
    rng: random.Random
    killed: Counter[str] = field(default_factory=Counter)
    _server: subprocess.Popen[bytes] | None = None
    _client: subprocess.Popen[bytes] | None = None
    _lives: int = 0

    def __post_init__(self) -> None:
        make_project(self.folder)
        with connect_home(Home(self.folder / ".everloop"), project="demo") as near:
            made = near.perform("token.create", CreateToken(name="kills"), NewToken)
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            self._port = int(listener.getsockname()[1])
        self.environment = clean_environment() | {
            "EVERLOOP_URL": f"http://127.0.0.1:{self._port}",
            "EVERLOOP_TOKEN": made.secret,
            "EVERLOOP_PROJECT": "demo",
            "HOME": str(self.folder),
            "PYTHONPATH": str(ROOT / "src"),
        }

    @property
    def spool(self) -> Path:
        """The folder in which the trainings spool."""
        return self.folder / ".cache" / "everloop" / "spool"

    @property
    def _notes(self) -> Path:
        return self.folder / "notes.jsonl"

    @property
    def _stop(self) -> Path:
        return self.folder / "stop"

    def start(self) -> None:
        """Start what does not live: the server, and a training that may take up an earlier run."""
        if self._server is None or self._server.poll() is not None:
            self._server = self._spawn(
                "server", "-m", "everloop", "up", "--port", str(self._port), "--no-serve",
                "--no-loop",
            )  # fmt: skip
        if self._client is None or self._client.poll() is not None:
            runs = list(self.promises())
            resume = [self.rng.choice(runs)[0]] if runs and self.rng.random() < 0.4 else []
            self._lives += 1
            words = (str(self._notes), str(self._stop), str(self._lives), *resume)
            self._client = self._spawn("client", str(CLIENT), *words)

    def live_on(self) -> None:
        """Let them live for a moment, counted from the training's first word."""
        known = self._noted()
        end = time.monotonic() + PATIENCE_S
        while self._noted() == known and time.monotonic() < end:
            assert self._client is not None
            assert self._client.poll() in {None, -9}, self.told()
            time.sleep(0.01)
        time.sleep(self.rng.uniform(0, LONGEST_LIFE_S))

    def kill(self) -> None:
        """Kill the training, the server or both."""
        chosen = self.rng.choice((("client",), ("server",), ("client", "server")))
        for kind in chosen:
            process = self._client if kind == "client" else self._server
            if process is not None and process.poll() is None:
                process.send_signal(signal.SIGKILL)
                process.wait()
                self.killed[kind] += 1

    def finish(self) -> None:
        """Let the last training end, and ship what is left."""
        self.start()
        self._await_server()
        self._stop.touch()
        assert self._client is not None
        assert self._client.wait(PATIENCE_S) == 0, self.told()
        done = subprocess.run(
            [sys.executable, "-m", "everloop", "sync", "--json"],
            cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False,
            timeout=PATIENCE_S,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr + done.stdout

    def end(self) -> None:
        """Kill what is left."""
        for process in (self._client, self._server):
            if process is not None and process.poll() is None:
                process.kill()
                process.wait()

    def promises(self) -> dict[tuple[str, str], dict[str, Any]]:
        """Return the last note of each training, by run and metric."""
        found: dict[tuple[str, str], dict[str, Any]] = {}
        text = self._notes.read_text() if self._notes.exists() else ""
        for line in text[: text.rfind("\n") + 1].splitlines():
            told = json.loads(line)
            found[told["run"], told["key"]] = told
        return found

    def told(self) -> str:
        """Return the end of what the processes wrote."""
        logs = (self.folder / f"{kind}.log" for kind in ("client", "server"))
        return "\n---\n".join(log.read_text(errors="replace")[-3_000:] for log in logs)

    def _spawn(self, kind: str, *words: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{kind}.log").open("ab") as output:
            return subprocess.Popen(
                [sys.executable, *words],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def _noted(self) -> int:
        return self._notes.stat().st_size if self._notes.exists() else 0

    def _await_server(self) -> None:
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            with suppress(httpx.HTTPError):
                if httpx.get(f"{self.environment['EVERLOOP_URL']}/healthz").status_code == 200:
                    return
            time.sleep(0.02)
        message = f"the server does not come up:\n{self.told()}"
        raise AssertionError(message)


def check(kills: Kills) -> dict[str, object]:
    """Everything promised is there, each point once and in order; return figures."""
    kept, promised, logged = 0, 0, 0
    with connect_home(Home(kills.folder / ".everloop"), project="demo") as near:
        kernel = near.kernel
        assert kernel is not None
        verdict = near.perform("audit.verify", VerifyLedger(), LedgerVerdict)
        assert verdict.ok, verdict.problems
        for (run, key), told in kills.promises().items():
            near.perform("run.show", ShowRun(run=run), RunDetails)
            with kernel.store.read() as tx:
                made = tx.find(Run, Id(run))
                assert made is not None
                view = View(tx, local_caller(kernel, OWNER), made.project, kernel.services)
                points = read_series(view, Id(run), key)
                files = {entry.path: entry for entry in tx.select(ArtifactEntry)}
            count = len(points.steps)
            assert list(range(count)) == points.steps.tolist() == points.values.tolist(), key
            # Even what was logged in the moment of the kill, which nobody had promised.
            seen = int.from_bytes(Path(told["seen"]).read_bytes(), "little")
            assert count >= max(seen, told["count"]), (run, key, count, seen, told)
            for name in told["files"]:
                data = near.blobs.get(parse_digest(files[name].digest))
                assert data.endswith(name.encode())
            kept, promised, logged = kept + count, promised + told["count"], logged + seen
        with kernel.store.read() as tx:
            assert [] == [run for run in tx.select(Run) if run.status is RunStatus.RUNNING]
    assert [] == [path.name for path in kills.spool.iterdir()]
    return {
        "kills": kills.killed.total(),
        "by_kind": dict(kills.killed),
        "trainings": len(kills.promises()),
        "points_promised": promised,
        "points_logged": logged,
        "points_kept": kept,
    }


def kill_often(folder: Path, *, kills: int, seed: int) -> dict[str, object]:
    """Kill so often, then check; return figures."""
    made = Kills(folder, random.Random(seed))
    try:
        while made.killed.total() < kills:
            made.start()
            made.live_on()
            made.kill()
        made.finish()
    finally:
        made.end()
    return check(made)
