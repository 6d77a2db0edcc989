"""A server that stands alone, as a real process with workers, over a folder of sealed bundles."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from everloop.kernel.signing import Ed25519Signer
from everloop.serve.bundle import GoldenAnswer, write_bundle
from everloop.serve.protocol import InputField
from tests.unit.serve.served import MODEL, make_bundle

NUMBERS = (
    InputField(name="hour", dtype="int64"),
    InputField(name="temperature", dtype="float64", nullable=True),
    InputField(name="working_day", dtype="bool"),
    InputField(name="weather", dtype="float64"),
)
GOLDEN = {"hour": 8, "temperature": 21.5, "working_day": True, "weather": 2.0}
SIGNER = Ed25519Signer("evaluator", b"\x07" * 32)


@dataclass(frozen=True)
class Standing:
    process: subprocess.Popen[str]
    http: str
    grpc: str | None


def seal(folder: Path, name: str, number: int = 1, model: bytes = MODEL) -> Path:
    """Write a bundle under a name; `plain` takes nothing but numbers."""
    bundle = make_bundle(number, model, deployment=name)
    if name == "plain":
        golden = GoldenAnswer(inputs=dict(GOLDEN), expected=bundle.golden[0].expected)
        bundle = make_bundle(number, model, deployment=name, inputs=NUMBERS, golden=(golden,))
    write_bundle(folder / name, bundle, {"model.txt": model}, SIGNER)
    return folder / name


@contextmanager
def standing(*arguments: object) -> Iterator[Standing]:
    """Run a server until the end of the block; give its addresses."""
    command = [sys.executable, "-m", "everloop.serve.main", *map(str, arguments), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            found = re.search(r"http://([0-9.:]+)(?: and grpc://([0-9.:]+))?", line)
            assert found is not None, line + process.stderr.read()
            yield Standing(process, found[1], found[2])
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)
