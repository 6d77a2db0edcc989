"""Looks at everything that can be wrong with a project; reads only."""

from __future__ import annotations

import importlib.util
import os
import sqlite3
import stat
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from everloop.app.config import load_config
from everloop.app.home import CONFIG_NAME, Home, find_home
from everloop.app.wiring import DATABASE_VARIABLE, SIGNERS
from everloop.core.errors import EverloopError

if TYPE_CHECKING:
    from everloop.kernel.ledger.checkpoint import Checkpoint

EXTRAS = {
    "lightgbm": ("lightgbm", "training and serving LightGBM models"),
    "skops": ("sklearn", "scikit-learn models"),
    "xgboost": ("xgboost", "training and serving XGBoost models"),
    "onnxruntime": ("onnx", "serving ONNX models"),
    "torch": ("torch", "training and serving PyTorch models"),
    "scipy": ("stats", "the gate's and the monitor's statistics"),
    "psycopg": ("postgres", "PostgreSQL"),
    "obstore": ("s3", "S3 and other object stores"),
}
EARLIEST = datetime(2025, 1, 1, tzinfo=UTC)
LEAST_FREE_BYTES = 200 * 1024**2


class Mark(StrEnum):
    """How a check turned out."""

    GOOD = "ok"
    NOTE = "note"
    BAD = "BAD"


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """One check: what was found, and what to do about it."""

    name: str
    mark: Mark
    what: str
    advice: str = ""


def examine(start: Path | None = None) -> list[Found]:
    """Return the outcome of every check; those after a missing home folder are left out."""
    found = [_python()]
    try:
        home = find_home(start)
    except EverloopError as error:
        return [*found, _bad("home", error.message, error.hint)]
    checks: tuple[Callable[[Home], Iterator[Found]], ...] = (
        _folder, _keys, _config, _database, _ledger, _blobs, _server, _spool,
    )  # fmt: skip
    for check in checks:
        try:
            found += check(home)
        except EverloopError as error:
            found.append(_bad(check.__name__.strip("_"), error.message, error.hint))
        except OSError as error:
            found.append(_bad(check.__name__.strip("_"), str(error), "Check the permissions."))
    return [*found, *_extras(), _clock(home)]


def _python() -> Found:
    version = ".".join(str(part) for part in sys.version_info[:3])
    return Found(name="python", mark=Mark.GOOD, what=version)


def _folder(home: Home) -> Iterator[Found]:
    if not home.path.is_dir():
        yield _bad("home", f"{home.path} is not there", "Run `everloop init`.")
        return
    mode = stat.S_IMODE(home.path.stat().st_mode)
    if mode & 0o077:
        yield _bad("home", f"others can enter it (mode {mode:o})", f"chmod 700 {home.path}")
    else:
        yield _good("home", str(home.path))
    files = os.statvfs(home.path)
    free = files.f_bavail * files.f_frsize
    if free < LEAST_FREE_BYTES:
        yield _bad("disk", f"only {free >> 20} MiB are free", "Make room.")
    else:
        yield _good("disk", f"{free >> 30} GiB free")


def _keys(home: Home) -> Iterator[Found]:
    from everloop.storage.keyfile import load_or_create_key

    names = [name for name in SIGNERS if (home.keys / f"{name}.key").exists()]
    for name in names:  # reading checks mode, owner and content; these exist, so none is made
        load_or_create_key(home.keys / f"{name}.key", os.urandom)
    missing = sorted(set(SIGNERS) - set(names))
    if missing:
        yield Found(
            name="keys",
            mark=Mark.NOTE,
            what=f"not made yet: {', '.join(missing)}",
            advice="The first command makes them.",
        )
    else:
        yield _good("keys", f"{', '.join(names)}: private and well-formed")


def _config(home: Home) -> Iterator[Found]:
    config = load_config(home.project_folder / CONFIG_NAME)
    yield _good("config", f"project {config.project}, {len(config.models)} models")


def _database(home: Home) -> Iterator[Found]:
    if os.environ.get(DATABASE_VARIABLE):
        yield Found(name="database", mark=Mark.NOTE, what=f"named by {DATABASE_VARIABLE}")
        return
    if not home.database.exists():
        yield Found(
            name="database", mark=Mark.NOTE, what="not made yet", advice="Run `everloop init`."
        )
        return
    began = time.perf_counter()
    connection = sqlite3.connect(f"file:{home.database}?mode=ro", uri=True)
    try:
        (answer,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    finally:
        connection.close()
    if answer == "ok":
        size = home.database.stat().st_size >> 10
        yield _good("database", f"{size} KiB, whole ({time.perf_counter() - began:.2f} s)")
    else:
        yield _bad("database", str(answer)[:200], "Restore it from a backup.")


def _ledger(home: Home) -> Iterator[Found]:
    """Compare the ledger's head with the newest checkpoint kept outside the database."""
    if not home.database.exists() and not os.environ.get(DATABASE_VARIABLE):
        return
    from everloop.app.wiring import ORIGIN, open_kernel
    from everloop.kernel.ledger import checkpoint, log

    kernel = open_kernel(home)
    try:
        with kernel.store.read() as tx:
            latest = tx.find(log.LedgerCheckpoint, log.LATEST)
            size = log.size(tx)
    finally:
        kernel.store.close()
    key = checkpoint.verifier_key(ORIGIN, kernel.services.signers["ledger"].public_key)
    if latest is None:
        yield Found(name="ledger", mark=Mark.NOTE, what="empty")
        return
    head = checkpoint.open_checkpoint(latest.note, key)
    outside = _last_anchor(home, key)
    if head.size != size or (outside is not None and outside.size > size):
        what = f"{size} entries, but a signed checkpoint names {max(head.size, size)}"
        yield _bad("ledger", what, "Run `everloop audit verify`; entries may have been removed.")
    else:
        yield _good("ledger", f"{size} entries, head signed; `everloop audit verify` checks all")


def _last_anchor(home: Home, key: str) -> Checkpoint | None:
    from everloop.app.wiring import ORIGIN
    from everloop.kernel.ledger import checkpoint

    if not home.anchor.exists():
        return None
    with home.anchor.open("rb") as file:
        file.seek(max(0, home.anchor.stat().st_size - 4096))
        text = file.read().decode("utf-8", "replace")
    start = text.rfind(f"{ORIGIN}\n")
    if start < 0:
        return None
    try:
        return checkpoint.open_checkpoint(text[start:].rstrip("\n") + "\n", key)
    except EverloopError:
        return None


def _blobs(home: Home) -> Iterator[Found]:
    if not os.access(home.blobs, os.R_OK | os.W_OK | os.X_OK):
        yield _bad("blobs", f"{home.blobs} can't be written", "Check its owner and mode.")
    else:
        yield _good("blobs", str(home.blobs))


def _server(home: Home) -> Iterator[Found]:
    running = home.running_server()
    if running is None:
        yield Found(name="server", mark=Mark.NOTE, what="not running", advice="`everloop up`")
    else:
        yield _good("server", f"{running.get('url')} (process {running.get('pid')})")


def _spool(home: Home) -> Iterator[Found]:
    waiting = [path for path in home.spool.glob("*") if path.is_file()]
    if waiting:
        yield Found(
            name="spool",
            mark=Mark.NOTE,
            what=f"{len(waiting)} files wait",
            advice="`everloop sync` ships what no live run holds.",
        )
    else:
        yield _good("spool", "empty")


def _extras() -> Iterator[Found]:
    for module, (extra, purpose) in EXTRAS.items():
        if importlib.util.find_spec(module) is not None:
            yield _good(f"extra {extra}", purpose)
        else:
            yield Found(
                name=f"extra {extra}",
                mark=Mark.NOTE,
                what=f"not installed: {purpose}",
                advice=f"pip install 'everloop[{extra}]'",
            )


def _clock(home: Home) -> Found:
    """A clock behind the last write would give ids and ledger entries the wrong order."""
    now = datetime.now(UTC)
    newest = EARLIEST
    if home.database.exists():
        newest = datetime.fromtimestamp(home.database.stat().st_mtime, UTC)
    if now < max(EARLIEST, newest - timedelta(minutes=1)):
        return _bad("clock", f"{now:%Y-%m-%d %H:%M} lies before the last write", "Set the clock.")
    return _good("clock", f"{now:%Y-%m-%d %H:%M:%S} UTC")


def _good(name: str, what: str) -> Found:
    return Found(name=name, mark=Mark.GOOD, what=what)


def _bad(name: str, what: str, advice: str) -> Found:
    return Found(name=name, mark=Mark.BAD, what=what, advice=advice)
