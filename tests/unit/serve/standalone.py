"""A real process that serves sealed bundles alone, started as a platform starts its container."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

import msgspec
import numpy as np

from everloop.core.digest import content_digest
from everloop.kernel.signing import Ed25519Signer
from everloop.serve.bundle import write_bundle
from tests.unit.serve.served import MODEL, make_bundle

SIGNER = Ed25519Signer("evaluator", b"\x07" * 32)
_PREFIX = "everloop-serve: http://"


def seal(
    folder: Path,
    number: int = 3,
    model: bytes = MODEL,
    *,
    attached: Mapping[str, bytes] = MappingProxyType({}),
    **changes: object,
) -> Path:
    """Write a sealed bundle and return its folder."""
    digests = {name: content_digest(data) for name, data in attached.items()}
    # Golden answers are made with a model of the usual inputs; whoever gives them may bring others.
    usual = MODEL if "golden" in changes else model
    found = make_bundle(number, usual, attachments=digests, **changes)
    digest = content_digest(model)
    bundle = msgspec.structs.replace(found, artifact=digest, files={"model.txt": digest})
    write_bundle(folder, bundle, {"model.txt": model, **attached}, SIGNER)
    return folder


def saved(rows: object) -> bytes:
    """Return rows as a bundle holds them."""
    held = io.BytesIO()
    np.save(held, np.asarray(rows, dtype=np.float64))
    return held.getvalue()


@contextmanager
def standing(*arguments: str, variables: Mapping[str, str] | None = None) -> Iterator[str]:
    """Run the command with what a platform gives it; give its address once it answers."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("EVERLOOP")}
    process = subprocess.Popen(
        [sys.executable, "-m", "everloop.serve.main", *arguments],
        env=ours | {"EVERLOOP_HOST": "127.0.0.1"} | dict(variables or {}),
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        seen = []
        for line in process.stderr:
            seen.append(line)
            if line.startswith(_PREFIX):
                break
        else:
            raise AssertionError("".join(seen))
        yield seen[-1].removeprefix("everloop-serve: ").strip()
    finally:
        process.terminate()
        code = process.wait(20)
        assert process.stderr is not None
        process.stderr.close()
    assert 0 == code
