"""A serving folder with real, sealed LightGBM bundles, and a real process over it, for tests."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import msgspec

from everloop.core.digest import content_digest
from everloop.core.ids import Id
from everloop.core.wire import (
    Address,
    Applied,
    CanaryTarget,
    PredictionRow,
    Routes,
    Scalar,
    Target,
    TokenHash,
)
from everloop.kernel.authz import hash_secret
from everloop.kernel.signing import Ed25519Signer
from everloop.serve.bundle import Bundle, GoldenAnswer, write_bundle
from everloop.serve.client import PredictClient
from everloop.serve.files import write_atomically
from everloop.serve.log import list_files, read_rows
from everloop.serve.protocol import InputField
from everloop.serve.runtime import open_model

MODEL = (Path(__file__).parent / "bike_small.txt").read_bytes()
TOKEN = "evl_" + "5e" * 32
ROW: dict[str, Scalar] = {
    "hour": 8,
    "temperature": 21.5,
    "working_day": True,
    "weather": "rain",
}
INPUTS = (
    InputField(name="hour", dtype="int64"),
    InputField(name="temperature", dtype="float64", nullable=True),
    InputField(name="working_day", dtype="bool"),
    InputField(name="weather", dtype="string", categories=("clear", "mist", "rain", "snow")),
)
MATRIX_ROW = [8.0, 21.5, 1.0, 2.0]
LATER = datetime(2100, 1, 1, tzinfo=UTC)


def shifted_model(shift: float) -> bytes:
    """The model with the leaves of its first tree moved, so that every answer moves by as much."""

    def move(match: re.Match[bytes]) -> bytes:
        values = (repr(float(value) + shift).encode() for value in match[1].split())
        return b"leaf_value=" + b" ".join(values)

    changed = re.sub(rb"leaf_value=([^\n]+)", move, MODEL, count=1)
    sizes = re.search(rb"tree_sizes=([0-9 ]+)", changed)
    assert sizes is not None
    trees = changed[changed.index(b"Tree=0") : changed.index(b"end of trees")]
    starts = [found.start() for found in re.finditer(rb"Tree=\d+", trees)] + [len(trees)]
    told = b" ".join(str(b - a).encode() for a, b in pairwise(starts))
    return changed.replace(sizes[0], b"tree_sizes=" + told)


def version_id(number: int) -> Id:
    return Id(f"01930000-0000-7000-8000-{number:012x}")


def make_bundle(number: int, model: bytes = MODEL, **changes: object) -> Bundle:
    """The description of a bundle; its golden answer is what the model says."""
    import numpy as np

    expected = open_model("lightgbm", {"model.txt": model}, 4).predict(np.array([MATRIX_ROW]))
    bundle = Bundle(
        deployment="bikes",
        model="demand",
        version_id=version_id(number),
        number=number,
        semver=f"1.{number}.0",
        artifact=content_digest(model),
        format="lightgbm",
        task="regression",
        inputs=INPUTS,
        output_name="rentals",
        output_minimum=-500.0,
        output_maximum=1_000.0,
        golden=(GoldenAnswer(inputs=ROW, expected=float(expected[0])),),
        files={"model.txt": content_digest(model)},
    )
    return msgspec.structs.replace(bundle, **changes)


@dataclass
class Served:
    """One deployment's folder and, once started, its process."""

    folder: Path
    signer: Ed25519Signer = field(default_factory=lambda: Ed25519Signer("evaluator", b"\x07" * 32))
    epoch: int = 0
    process: subprocess.Popen[bytes] | None = None
    clients: list[PredictClient] = field(default_factory=list)

    def seal(self, number: int, model: bytes = MODEL, **changes: object) -> Target:
        """Write a sealed bundle and return how routes name it."""
        bundle = make_bundle(number, model, **changes)
        path = f"bundles/{bundle.version_id}"
        write_bundle(self.folder / path, bundle, {"model.txt": model}, self.signer)
        return Target(version_id=bundle.version_id, bundle=path)

    def route(
        self,
        champion: Target | None,
        *,
        canary: Target | None = None,
        share: float = 0.5,
        shadow: Target | None = None,
        previous: Target | None = None,
        tokens: Iterable[TokenHash] | None = None,
        **more: object,
    ) -> int:
        """Write new routes and return their epoch."""
        self.epoch += 1
        routes = Routes(
            epoch=self.epoch,
            deployment="bikes",
            public_key=self.signer.public_key.hex(),
            tokens=tuple(tokens)
            if tokens is not None
            else (TokenHash(hash=hash_secret(TOKEN), expires_at=LATER),),
            champion=champion,
            canary=None
            if canary is None
            else CanaryTarget(
                version_id=canary.version_id, bundle=canary.bundle, share=share, salt="salt"
            ),
            shadow=shadow,
            previous=previous,
        )
        routes = msgspec.structs.replace(routes, **more)
        write_atomically(self.folder / "routes.json", msgspec.json.encode(routes))
        return self.epoch

    def start(self, *options: str) -> Address:
        """Start the process and wait until it tells its address and answers."""
        (self.folder / "server.json").unlink(missing_ok=True)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "everloop.serve.main", "--home", str(self.folder), *options],
            stderr=subprocess.PIPE,
        )
        wait_until(lambda: (self.folder / "server.json").exists() or self._has_ended())
        if self._has_ended():
            told = self.process.stderr.read().decode() if self.process.stderr else ""
            self.stop()
            raise AssertionError(told)
        return msgspec.json.decode((self.folder / "server.json").read_bytes(), type=Address)

    def client(self, token: str = TOKEN) -> PredictClient:
        address = msgspec.json.decode((self.folder / "server.json").read_bytes(), type=Address)
        self.clients.append(PredictClient(address.url, token))
        return self.clients[-1]

    def await_epoch(self, epoch: int) -> Applied:
        """Wait until the process has looked at the routes of this epoch."""
        wait_until(lambda: self.applied().seen_epoch >= epoch)
        return self.applied()

    def applied(self) -> Applied:
        return msgspec.json.decode((self.folder / "applied.json").read_bytes(), type=Applied)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Signal the process and return its exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        code = self.process.wait(15)
        if self.process.stderr is not None:
            self.process.stderr.close()
        self.process = None
        return code

    def rows(self) -> list[PredictionRow]:
        """Every row of the log that can be read now."""
        log = self.folder / "log"
        return [row for file in list_files(log) for row in read_rows(log, file.name).rows]

    def close(self) -> None:
        """End the process, if there is one, and let go of all that is open."""
        if self.process is not None:
            self.stop(signal.SIGKILL)
        for client in self.clients:
            client.close()

    def _has_ended(self) -> bool:
        return self.process is not None and self.process.poll() is not None


def wait_until(is_true: Callable[[], bool], *, seconds: float = 20.0) -> None:
    """Wait for something that another process does."""
    deadline = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


def make_folder(path: Path) -> Served:
    path.mkdir(parents=True, exist_ok=True)
    return Served(path)
