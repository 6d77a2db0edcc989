"""A small project in a folder of its own, and its processes, for stories with real processes."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

SETTINGS = """\
version: 1
project: demo
models:
  demand:
    task: regression
    target: cnt
    loop: {enabled: true, pipeline: "story_training:train", dataset: hours, time: event}
server: {port: 0}
"""
TRAINING = """\
import lightgbm
import numpy as np


def train(rows, target, seed):
    names = [name for name in rows.column_names if name != target]
    matrix = np.column_stack([rows.column(name).to_numpy() for name in names])
    data = lightgbm.Dataset(matrix, label=rows.column(target).to_numpy(), feature_name=names)
    params = {"objective": "regression", "num_leaves": 7, "verbosity": -1, "num_threads": 1,
              "seed": seed, "deterministic": True, "force_row_wise": True}
    return lightgbm.train(params, data, num_boost_round=20)
"""
START = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class Project:
    """A folder with a project in it."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        return self.folder / ".everloop"

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command line in the folder."""
        done = subprocess.run(
            [sys.executable, "-m", "everloop", *arguments],
            cwd=self.folder,
            env=clean_environment() | self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert not check or done.returncode == 0, done.stderr + done.stdout
        return done

    def json(self, *arguments: str) -> Any:
        """Run a command line and return what it printed as JSON."""
        return json.loads(self.run(*arguments, "--json").stdout)

    def address(self) -> str:
        """Return the address of the running control plane."""
        return str(json.loads((self.home / "server.json").read_text())["url"])

    def serving(self, deployment: str = "demand") -> dict[str, Any]:
        """Return what the serving process wrote about itself."""
        text = (self.home / "serve" / deployment / "server.json").read_text()
        return dict(json.loads(text))

    @contextmanager
    def up(self, *options: str) -> Iterator[subprocess.Popen[str]]:
        """Run the control plane; it is stopped at the end of the block."""
        process = subprocess.Popen(
            [sys.executable, "-m", "everloop", "up", *options],
            cwd=self.folder,
            env=clean_environment() | self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            wait_for(lambda: self._answers(process.pid), "the control plane answers")
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            process.communicate(timeout=30)

    def _answers(self, pid: int) -> bool:
        told = json.loads((self.home / "server.json").read_text())
        return bool(told["pid"] == pid and httpx.get(f"{told['url']}/healthz").status_code == 200)


def clean_environment() -> dict[str, str]:
    """Return this environment without what would lead a command elsewhere."""
    return {name: value for name, value in os.environ.items() if not name.startswith("EVERLOOP")}


def make_project(folder: Path) -> Project:
    """Make a project with its settings and training code, but without data."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "everloop.yaml").write_text(SETTINGS)
    (folder / "story_training.py").write_text(TRAINING)
    project = Project(folder)
    project.run("init")
    return project


def write_hours(path: Path, *, first: int, count: int, seed: int = 1) -> None:
    """Write hours of a demand that two inputs explain."""
    source = random.Random(seed + first)
    lines = ["at,temperature,hour,cnt"]
    for place in range(first, first + count):
        warm, hour = round(source.uniform(0, 30), 3), place % 24
        demand = round(100 + 5 * warm + (40 if 7 <= hour < 19 else 0) + source.gauss(0, 15), 3)
        at = START + timedelta(hours=place)
        lines.append(f"{at:%Y-%m-%dT%H:%M:%SZ},{warm},{hour},{demand}")
    path.write_text("\n".join(lines) + "\n")


def wait_for(question: Callable[[], object], what: str, timeout_s: float = 20.0) -> None:
    """Wait until the answer is yes; an error is a no."""
    end = time.monotonic() + timeout_s
    problem: object = None
    while time.monotonic() < end:
        try:
            if question():
                return
        except (OSError, ValueError, KeyError, httpx.HTTPError, AssertionError) as error:
            problem = error
        time.sleep(0.02)
    raise AssertionError(f"after {timeout_s} s still not: {what} ({problem!r})")
