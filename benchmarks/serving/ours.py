"""Our own server as a subject: sealed bundles, routes, and the same HTTP server with an echo."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import model
import msgspec
import numpy as np
import pyarrow as pa
from subjects import APPS, Subject

from everloop.core.digest import content_digest
from everloop.core.ids import Id
from everloop.core.wire import Routes, Target, TokenHash
from everloop.data.profile import profile_table
from everloop.kernel.authz import hash_secret
from everloop.kernel.signing import Ed25519Signer
from everloop.serve.bundle import Bundle, GoldenAnswer, write_bundle
from everloop.serve.files import write_atomically
from everloop.serve.protocol import InputField

TOKEN = "evl_" + "5e" * 32
HEADERS = {"Authorization": f"Bearer {TOKEN}"}
DEPLOYMENT = "bench"
PROFILE = "profile.json"
LATER = datetime(2100, 1, 1, tzinfo=UTC)
DOES = "token, row checked, prediction with inputs in the log (survives the process), drift sketch"


def version_id(number: int) -> Id:
    """Return the id of the n-th version."""
    return Id(f"01930000-0000-7000-8000-{number:012x}")


class Folder:
    """One deployment's serving folder, filled as the control plane would fill it."""

    def __init__(self, place: Path, deployment: str = DEPLOYMENT) -> None:
        self.place = place
        self.deployment = deployment
        self.epoch = 0
        self._signer = Ed25519Signer("evaluator", os.urandom(32))
        place.mkdir(parents=True, exist_ok=True)

    def seal(self, number: int, text: str) -> Target:
        """Write a sealed bundle of the model; return how routes name it."""
        data = text.encode()
        asked = model.rows(8, seed=3)
        golden = tuple(
            GoldenAnswer(inputs=dict(zip(model.NAMES, row, strict=True)), expected=float(answer))
            for row, answer in zip(asked.tolist(), model.answers(text, asked), strict=True)
        )
        table = pa.table(dict(zip(model.NAMES, model.rows(model.ROWS, seed=5).T, strict=True)))
        profile = msgspec.json.encode(profile_table(table))
        bundle = Bundle(
            deployment=self.deployment,
            model="bench",
            version_id=version_id(number),
            number=number,
            semver=f"1.{number}.0",
            artifact=content_digest(data),
            format="lightgbm",
            task="regression",
            inputs=tuple(InputField(name=name, dtype="float64") for name in model.NAMES),
            output_name="target",
            golden=golden,
            files={"model.txt": content_digest(data)},
            profile=PROFILE,
            attachments={PROFILE: content_digest(profile)},
        )
        path = f"bundles/{bundle.version_id}"
        files = {"model.txt": data, PROFILE: profile}
        write_bundle(self.place / path, bundle, files, self._signer)
        return Target(version_id=bundle.version_id, bundle=path)

    def route(self, champion: Target, previous: Target | None = None) -> None:
        """Write routes with this champion."""
        self.epoch += 1
        routes = Routes(
            epoch=self.epoch,
            deployment=self.deployment,
            public_key=self._signer.public_key.hex(),
            tokens=(TokenHash(hash=hash_secret(TOKEN), expires_at=LATER),),
            champion=champion,
            previous=previous,
        )
        write_atomically(self.place / "routes.json", msgspec.json.encode(routes))


def subject(folder: Path, text: Path) -> Subject:
    """Return our server over a folder with one version; answers JSON records."""
    made = Folder(folder / DEPLOYMENT)
    made.route(made.seal(1, text.read_text()))
    return _subject(made.place, text)


def _subject(home: Path, text: Path) -> Subject:
    return Subject(
        name="Everloop",
        kind="everloop",
        command=lambda port: _command(home, port),
        path="/v1/predict",
        ready="/readyz",
        one=model.records,
        read=lambda answer: [row["output"] for row in json.loads(answer)["predictions"]],
        variables={"TEXT": str(text)},
        headers=HEADERS,
        does=DOES,
    )


def _command(folder: Path, port: int) -> list[str]:
    program = [sys.executable, "-m", "everloop.serve.main"]
    return [*program, "--home", str(folder), "--port", str(port)]


def in_process(text: str) -> Callable[[model.Matrix], object]:
    """Return the model as the server calls it, without any server."""
    from everloop.serve.runtime import open_model

    return open_model("lightgbm", {"model.txt": text.encode()}, model.FEATURES).predict


def batch_subjects(folder: Path, text: Path) -> list[Subject]:
    """Return our server asked by binary tensors and by JSON records."""
    plain = subject(folder, text)
    tensors = replace(
        plain,
        name="Everloop, binary tensors",
        path=f"/v2/models/{DEPLOYMENT}/infer",
        one=model.binary,
        read=lambda answer: np.frombuffer(answer[-8:], dtype="<f8").tolist(),
        headers={
            **HEADERS,
            "Content-Type": "application/octet-stream",
            "Inference-Header-Content-Length": str(model.HEAD_BYTES),
        },
    )
    return [tensors, replace(plain, name="Everloop, JSON records")]


def many(folder: Path, text: Path, count: int) -> list[Subject]:
    """Return our server with so many models in one process; the last one is asked."""
    home = folder / "everloop-many"
    for number in range(count):
        made = Folder(home / f"bench-{number}", f"bench-{number}")
        made.route(made.seal(1, text.read_text()))
    one = _subject(home, text)
    path = f"/models/bench-{count - 1}/predict"
    return [replace(one, name=f"Everloop, {count} models", path=path)]


def echoes(text: Path) -> list[Subject]:
    """Return the limit: our own HTTP server with one fixed answer."""
    return [
        Subject(
            name="our HTTP server, echo",
            kind="limit",
            command=lambda port: [sys.executable, str(APPS / "echo.py"), str(port)],
            path="/v1/predict",
            ready="/",
            one=model.records,
            read=None,
            variables={"TEXT": str(text)},
            headers=HEADERS,
        )
    ]
