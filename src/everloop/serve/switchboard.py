"""Which versions answer now: reads the routes, verifies and loads bundles, and switches at once.

A switch is one assignment of a frozen value; a request in flight finishes on what it began with.
What cannot be verified is never switched to: a bad champion keeps the state before, a bad canary
or shadow is left out. Tokens take effect in any case, so that a revoked one cannot live on behind
a broken bundle.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from everloop.core.clock import Clock, Instant
from everloop.core.errors import EverloopError, IntegrityError, NotFound
from everloop.core.wire import Applied, Arm, CanaryTarget, LogRules, RefusedBundle, Routes, Target
from everloop.serve.bundle import LoadedBundle, open_bundle, read_key, read_name
from everloop.serve.files import write_atomically
from everloop.serve.log import Source
from everloop.serve.observe.tally import Answers
from everloop.serve.scoring import Scorer

ROUTES_FILE = "routes.json"
APPLIED_FILE = "applied.json"
BUNDLES = "bundles"
LOG = "log"
WORKERS = "workers"
Stamp = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Canary:
    """The canary with its share of the traffic."""

    scorer: Scorer
    share: float
    salt: str


@dataclass(frozen=True, slots=True)
class Lineup:
    """The versions that answer, and the tokens that may ask, at one moment.

    Attributes:
        constant: Answers every row instead of any version; None but where a kill switch says so.
    """

    epoch: int = 0
    deployment: str = ""
    champion: Scorer | None = None
    canary: Canary | None = None
    shadow: Scorer | None = None
    resident: tuple[Scorer, ...] = ()
    constant: float | None = None
    tokens: dict[str, Instant] = field(default_factory=dict)
    feedback_tokens: dict[str, Instant] = field(default_factory=dict)
    log: LogRules = field(default_factory=LogRules)
    common: dict[tuple[Scorer, Arm, bool], tuple[Source, Answers]] = field(default_factory=dict)

    def scorer(self, loaded: LoadedBundle) -> Scorer:
        """Return what asks a resident version."""
        return next(each for each in self.resident if each.loaded is loaded)

    def find_version(self, text: str) -> LoadedBundle:
        """Return a resident version by its semantic version, its number or its id.

        Raises:
            NotFound: ``model.version_not_resident``.
        """
        for scorer in self.resident:
            bundle = scorer.loaded.bundle
            if text in (bundle.semver, str(bundle.number), bundle.version_id):
                return scorer.loaded
        here = ", ".join(scorer.loaded.bundle.semver for scorer in self.resident)
        raise NotFound(
            "model.version_not_resident",
            f"Version {text[:40]!r} of {self.deployment!r} is not loaded here.",
            hint=f"Loaded are: {here or 'none'}.",
        )


class Switchboard:
    """Keeps the line-up in step with the routes file.

    ``lineup`` is read by the thread that answers; ``reload`` is called by one thread at a time.
    """

    def __init__(self, folder: Path, clock: Clock, *, pinned_key: str | None = None) -> None:
        self.folder = folder
        self._worker: str | None = None
        self._seen_epoch = 0
        self.lineup = Lineup()
        self.refused: tuple[RefusedBundle, ...] = ()
        self._clock = clock
        self._pinned_key = pinned_key
        self._stamp: Stamp | None = None
        self._resident: dict[tuple[str, str], Scorer] = {}

    @property
    def log(self) -> Path:
        """Where this deployment's predictions are logged."""
        return self.folder / LOG

    def forget_reports(self) -> None:
        """Forget what workers of an earlier group said: it had more of them, perhaps."""
        for told in (self.folder / WORKERS).glob("*.json"):
            told.unlink(missing_ok=True)

    def take_over(self, worker: str) -> None:
        """Report as this worker from now on."""
        self._worker = worker
        self._report(self._seen_epoch)

    def is_stale(self) -> bool:
        """Tell whether the routes file is another one than was read last."""
        stamp = self._read_stamp()
        return stamp is not None and stamp != self._stamp

    def reload(self) -> None:
        """Read the routes, load what is new, switch, and report in ``applied.json``."""
        stamp = self._read_stamp()
        if stamp is None:
            return
        try:
            routes = msgspec.json.decode((self.folder / ROUTES_FILE).read_bytes(), type=Routes)
            self._require_pinned(routes)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError, IntegrityError) as error:
            self._stamp = stamp
            self._refuse_routes(error)
            return
        self._switch(routes)
        self._stamp = stamp
        self._report(routes.epoch)

    def _read_stamp(self) -> Stamp | None:
        try:
            found = (self.folder / ROUTES_FILE).stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ino, found.st_size

    def _require_pinned(self, routes: Routes) -> None:
        if self._pinned_key is not None and routes.public_key != self._pinned_key:
            raise IntegrityError(
                "routes.other_key",
                "The routes name another public key than this process was started with.",
                hint="Start the process with the key that seals the bundles.",
            )

    def _switch(self, routes: Routes) -> None:
        refused: list[RefusedBundle] = []
        tokens = {token.hash: token.expires_at for token in routes.tokens}
        tellers = {token.hash: token.expires_at for token in routes.feedback_tokens}
        champion = self._load(routes, "champion", routes.champion, refused)
        if routes.champion is not None and champion is None and self.lineup.champion is not None:
            self.lineup = replace(self.lineup, tokens=tokens, feedback_tokens=tellers)
            self.refused = tuple(refused)
            return
        canary = self._load(routes, "canary", routes.canary, refused)
        shadow = self._load(routes, "shadow", routes.shadow, refused)
        previous = self._load(routes, "previous", routes.previous, refused)
        lineup = Lineup(
            epoch=routes.epoch,
            deployment=routes.deployment,
            champion=champion,
            canary=_canary(routes.canary, canary),
            shadow=shadow,
            resident=_distinct(champion, canary, shadow, previous),
            constant=routes.constant,
            tokens=tokens,
            feedback_tokens=tellers,
            log=routes.log,
        )
        replaced = self.lineup.champion
        self.lineup = lineup
        self.refused = tuple(refused)
        self._forget(routes, replaced)

    def _load(
        self, routes: Routes, role: str, target: Target | None, refused: list[RefusedBundle]
    ) -> Scorer | None:
        if target is None:
            return None
        key = (target.version_id, routes.public_key)
        if key in self._resident:
            return self._resident[key]
        try:
            loaded = self._open(routes, target)
        except EverloopError as error:
            code, message = error.code, error.message
        except Exception as error:  # noqa: BLE001 -- a damaged model file may break its reader anyhow
            code, message = "bundle.unreadable", f"{type(error).__name__}: {error}"
        else:
            scorer = self._resident[key] = Scorer(loaded)
            scorer.warm()
            return scorer
        refused.append(
            RefusedBundle(role=role, version_id=target.version_id, code=code, message=message[:500])
        )
        return None

    def _open(self, routes: Routes, target: Target) -> LoadedBundle:
        home = self.folder / BUNDLES
        folder = self.folder / target.bundle
        if folder.resolve().parent != home.resolve():
            raise IntegrityError(
                "bundle.unreadable",
                f"The bundle path {target.bundle[:60]!r} leads out of the bundles folder.",
                hint="Write it as bundles/<version id>.",
            )
        loaded = open_bundle(folder, _key_bytes(routes.public_key))
        found = loaded.bundle
        if (found.version_id, found.deployment) != (target.version_id, routes.deployment):
            # A sealed bundle of an older version must not pass for a newer one.
            raise IntegrityError(
                "bundle.other_version",
                f"The bundle {folder.name} holds version {found.version_id} of {found.deployment}.",
                hint="Write the bundle again from the registry.",
            )
        return loaded

    def _forget(self, routes: Routes, replaced: Scorer | None) -> None:
        targets = (routes.champion, routes.canary, routes.shadow, routes.previous)
        kept = {target.version_id for target in targets if target is not None}
        if replaced is not None:
            kept.add(replaced.loaded.bundle.version_id)
        for key in [key for key in self._resident if key[0] not in kept]:
            # Requests in flight still hold it; the model's memory goes with the last of them.
            self._resident.pop(key).close()

    def _refuse_routes(self, error: Exception) -> None:
        code = error.code if isinstance(error, EverloopError) else "routes.unreadable"
        refusal = RefusedBundle(role="routes", version_id="", code=code, message=str(error)[:500])  # type: ignore[arg-type]
        self.refused = (refusal,)
        self._report(self.lineup.epoch)

    def _report(self, seen_epoch: int) -> None:
        self._seen_epoch = seen_epoch
        if self._worker is None:
            return  # before the fork: nobody answers yet
        applied = Applied(
            epoch=self.lineup.epoch,
            seen_epoch=seen_epoch,
            at=self._clock.now(),
            pid=os.getpid(),
            refused=self.refused,
        )
        write_applied(self.folder, self._worker, applied)


class Still:
    """A sealed bundle that stands alone: one version, no routes, no tokens."""

    refused: tuple[RefusedBundle, ...] = ()

    def __init__(self, folder: Path, key: str | None) -> None:
        self.folder = folder
        self.log: Path | None = None
        self.lineup = Lineup()
        self._key = key
        self.name = read_name(folder)

    def is_stale(self) -> bool:
        """Nothing changes by itself."""
        return False

    def forget_reports(self) -> None:
        """There are none."""

    def take_over(self, worker: str) -> None:
        """There is nobody to report to."""

    def reload(self) -> None:
        """Open the bundle.

        Raises:
            IntegrityError: it does not verify.
        """
        scorer = Scorer(open_bundle(self.folder, _key_bytes(self._key or read_key(self.folder))))
        scorer.warm()
        bundle = scorer.loaded.bundle
        replaced = self.lineup.resident
        self.lineup = Lineup(
            deployment=bundle.deployment or bundle.model, champion=scorer, resident=(scorer,)
        )
        _let_go(replaced)

    def rest(self) -> None:
        """Let go of the version; requests in flight still hold it."""
        replaced = self.lineup.resident
        self.lineup = Lineup(deployment=self.lineup.deployment)
        _let_go(replaced)


def _let_go(scorers: tuple[Scorer, ...]) -> None:
    for scorer in scorers:
        scorer.close()


def write_applied(folder: Path, worker: str, applied: Applied) -> None:
    """Report what a worker applied; of several workers the one that is furthest behind counts."""
    place = folder / WORKERS
    place.mkdir(exist_ok=True)
    with _held(place / ".lock"):
        write_atomically(place / f"{worker}.json", msgspec.json.encode(applied))
        told = [_read_applied(path) for path in place.glob("*.json")]
        least = min((each for each in told if each is not None), key=lambda each: each.epoch)
        write_atomically(folder / APPLIED_FILE, msgspec.json.encode(least))


def _read_applied(path: Path) -> Applied | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Applied)
    except (OSError, msgspec.MsgspecError):
        return None


@contextmanager
def _held(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _canary(target: CanaryTarget | None, scorer: Scorer | None) -> Canary | None:
    if target is None or scorer is None:
        return None
    return Canary(scorer=scorer, share=target.share, salt=target.salt)


def _distinct(*scorers: Scorer | None) -> tuple[Scorer, ...]:
    return tuple(dict.fromkeys(scorer for scorer in scorers if scorer is not None))


def _key_bytes(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        return b""
