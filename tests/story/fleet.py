"""A control plane over real HTTP, and devices that are real processes of a bare Python."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from everloop.app.server import answering, build_app
from everloop.app.verbs import load_verbs
from everloop.edge.queries import EdgeBundleView
from everloop.fleet.devices import EnrolDevice, EnrolledDevice
from everloop.fleet.queries import FleetView, ShowFleet
from everloop.fleet.verbs import CreateFleet, ReleaseFleet, RollBackFleet, StepFleet
from tests.kit import PROJECT, World
from tests.unit.edge import sealed

load_verbs()


@dataclass
class Yard:
    """A world with a fleet of the model ``credit``.

    Attributes:
        bundles: Sealed bundles, oldest first.
        files: The same as files, as a device gets its first one.
    """

    world: World
    folder: Path
    url: str = ""
    bundles: list[EdgeBundleView] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)

    def seal(self, model: Any, **options: Any) -> EdgeBundleView:
        """Register, seal and keep one more version."""
        version = sealed.register(self.world, model)
        built = sealed.seal(self.world, version, **options)
        self.bundles.append(built)
        self.files.append(sealed.fetch(self.world, built, self.folder))
        return built

    def create(self, name: str, **options: Any) -> FleetView:
        ask = CreateFleet(name=name, model="credit", **options)
        return self.world.owner.perform("fleet.create", ask, FleetView)

    def release(self, name: str, bundle: EdgeBundleView) -> FleetView:
        ask = ReleaseFleet(fleet=name, digest=bundle.bundle.digest)
        return self.world.owner.perform("fleet.release", ask, FleetView)

    def step(self, name: str) -> FleetView:
        return self.world.owner.perform("fleet.step", StepFleet(fleet=name), FleetView)

    def go_back(self, name: str) -> FleetView:
        return self.world.owner.perform("fleet.rollback", RollBackFleet(fleet=name), FleetView)

    def show(self, name: str) -> FleetView:
        return self.world.owner.perform("fleet.show", ShowFleet(fleet=name), FleetView)

    def enrol(self, fleet: str, name: str, group: str) -> EnrolledDevice:
        ask = EnrolDevice(fleet=fleet, name=name, group=group)
        return self.world.owner.perform("device.enrol", ask, EnrolledDevice)

    def device(self, fleet: str, name: str, group: str = "rest", first: int = 0) -> Machine:
        """Enrol a device and give it its file and its first bundle."""
        made = self.enrol(fleet, name, group)
        state = self.folder / fleet / name
        state.mkdir(parents=True)
        told = {
            "url": self.url,
            "project": made.project,
            "fleet": made.fleet,
            "device": name,
            "token": made.token,
            "key": made.key,
        }
        (state / "device.json").write_text(json.dumps(told))
        return Machine(state, self.files[first])


@dataclass
class Machine:
    """One device: a folder, and the bundle that it was delivered with."""

    state: Path
    bundle: Path

    def run(self, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return sealed.run(self.bundle, command, "--state", str(self.state), *arguments)

    def sync(self) -> dict[str, Any]:
        """Let it ask and tell once."""
        return sealed.answers(self.run("sync"))[-1]

    def predict(self, *rows: dict[str, object]) -> list[dict[str, Any]]:
        """Ask the bundle in force, which logs."""
        current = self.state / "current.pyz"
        path = current if current.exists() else self.bundle
        return sealed.answers(
            sealed.run(path, "predict", "--state", str(self.state / "log"), json.dumps(rows))
        )

    def told(self) -> dict[str, Any]:
        """What it keeps about its bundles."""
        return dict(json.loads((self.state / "agent.json").read_text()))

    @contextmanager
    def running(self, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run its agent until the block ends."""
        with (self.state / "said").open("ab") as said:
            process = subprocess.Popen(
                [*sealed.BARE, str(self.bundle), "run", "--state", str(self.state), "--port", "0",
                 "--every", "0.3", "--trial", "0.2", *arguments],
                stdout=said,
                stderr=subprocess.STDOUT,
                env={"PATH": os.environ["PATH"]},
            )  # fmt: skip
            try:
                yield process
            finally:
                process.terminate()
                process.wait(timeout=20)

    def health(self) -> dict[str, Any]:
        """What it answers about itself."""
        address = (self.state / "address").read_text()
        return dict(httpx.get(f"{address}/healthz").json())


def until(is_so: Callable[[], bool], what: str, *, within_s: float = 30.0) -> None:
    """Wait until something is so."""
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        try:
            if is_so():
                return
        except (OSError, ValueError, KeyError, httpx.HTTPError):
            pass
        time.sleep(0.05)
    raise AssertionError(f"not within {within_s} s: {what}")


@contextmanager
def control_plane(yard: Yard) -> Iterator[None]:
    """Answer devices over HTTP."""
    listener = socket.create_server(("127.0.0.1", 0))
    host, port = listener.getsockname()
    yard.url = f"http://{host}:{port}"
    app = build_app(yard.world.kernel, hosts=frozenset({host}), project=PROJECT)
    with answering(app, listener):
        yield
