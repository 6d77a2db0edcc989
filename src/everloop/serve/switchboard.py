"""Keeps the line-up in step with the routes: verifies and loads bundles, and switches at once.

A switch is one assignment of a frozen value; a request in flight finishes on what it began with.
What cannot be verified is never switched to: a bad champion keeps the state before, a bad canary
or shadow is left out. Tokens and a kill switch's constant take effect in any case, so that neither
waits for a bundle that is broken or takes long.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import msgspec

from everloop.core.clock import Clock, Instant
from everloop.core.digest import Digest
from everloop.core.errors import EverloopError, IntegrityError
from everloop.core.wire import Applied, CanaryTarget, RefusedBundle, Routes, Target, TokenHash
from everloop.serve.applied import WORKERS, write_applied
from everloop.serve.bundle import Bundle, LoadedBundle, key_bytes, open_bundle
from everloop.serve.decode import FloatArray
from everloop.serve.lineup import Canary, Lineup
from everloop.serve.protocol import InputField
from everloop.serve.scoring import Scorer

ROUTES_FILE = "routes.json"
BUNDLES = "bundles"
LOG = "log"
Stamp = tuple[int, int, int]
Look = tuple[tuple[str, int, int, int], ...]
_Key = tuple[str, str]


class _Bad(NamedTuple):
    """A bundle that was refused.

    Attributes:
        mark: How its files looked then; None where the next look may find otherwise of itself.
    """

    told: RefusedBundle
    mark: Look | None

    def is_over(self, folder: Path, target: Target) -> bool:
        """Tell whether it lies there otherwise by now, so that it is worth reading again."""
        return self.mark is None or self.mark != _look_of(folder / target.bundle)


class Switchboard:
    """Keeps the line-up in step with the routes file.

    ``lineup`` is read by the thread that answers; ``follow`` and ``complete`` are called beside
    each other.
    """

    def __init__(self, folder: Path, clock: Clock, *, pinned_key: str | None = None) -> None:
        self.folder = folder
        self._worker: str | None = None
        self.lineup = Lineup()
        self.refused: tuple[RefusedBundle, ...] = ()
        self._clock = clock
        self._pinned_key = pinned_key
        self._stamp: Stamp | None = None
        self._routes: Routes | None = None
        self._resident: dict[_Key, Scorer] = {}
        self._replaced: Scorer | None = None
        self._bad: dict[_Key, _Bad] = {}
        self._guard = threading.RLock()
        self._loading = threading.Lock()
        self._told: Applied | None = None
        self._seen_epoch = 0

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
        self._report()

    def is_stale(self) -> bool:
        """Tell whether the routes file is another one than was read last."""
        stamp = self._read_stamp()
        return stamp is not None and stamp != self._stamp

    def reload(self) -> None:
        """Read the routes, switch, load what is new, and report in ``applied.json``."""
        with self._guard:
            self._bad.clear()
            if self._routes is not None:
                self._settle(self._routes)
        self.follow()
        self.complete()

    def follow(self) -> None:
        """Read the routes and switch to what is loaded of them; nothing else is waited for."""
        with self._guard:
            stamp = self._read_stamp()
            if stamp is None:
                return
            try:
                routes = msgspec.json.decode((self.folder / ROUTES_FILE).read_bytes(), type=Routes)
                self._require_pinned(routes)
            except (OSError, msgspec.MsgspecError, UnicodeDecodeError, IntegrityError) as error:
                self._refuse_routes(error)
            else:
                self._routes = routes
                self._settle(routes)
            self._stamp = stamp
            self._report()

    def complete(self) -> None:
        """Load what the routes name and is not loaded, one after the other, the champion first.

        The routes may change meanwhile: a rollback does not wait for the model of a canary.
        """
        tried: set[_Key] = set()
        with self._loading:
            while True:
                with self._guard:
                    found, routes = self._next(tried), self._routes
                if found is None or routes is None:
                    return
                tried.add(_key(routes, found[1]))
                self._take_in(routes, *found)

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

    def _next(self, tried: set[_Key]) -> tuple[str, Target] | None:
        """Return what is to be loaded next, and as what."""
        if self._routes is None:
            return None
        for role, target in _named(self._routes):
            key = _key(self._routes, target)
            if key in tried or key in self._resident:
                continue
            bad = self._bad.get(key)
            if bad is None or bad.is_over(self.folder, target):
                return role, target
        return None

    def _take_in(self, routes: Routes, role: str, target: Target) -> None:
        key = _key(routes, target)
        look = _look_of(self.folder / target.bundle)
        found: Scorer | _Bad
        try:
            found = Scorer(self._open(routes, target))
            found.warm()
        except Exception as error:  # noqa: BLE001 -- a damaged model file may break its reader anyhow
            found = _to_bad(role, target, error, look)
        with self._guard:
            if isinstance(found, Scorer):
                self._resident[key] = found
                self._bad.pop(key, None)
            else:
                self._bad[key] = found
            self._settle(self._routes or routes)
            self._report()

    def _settle(self, routes: Routes) -> None:
        """Switch to what is loaded of the routes."""

        def loaded(target: Target | None) -> Scorer | None:
            return None if target is None else self._resident.get(_key(routes, target))

        named = _named(routes)
        before, champion = self.lineup, loaded(routes.champion)
        lineup = Lineup(
            epoch=routes.epoch,
            deployment=routes.deployment,
            champion=champion,
            canary=_canary(routes.canary, loaded(routes.canary)),
            shadow=loaded(routes.shadow),
            resident=_distinct(*(loaded(target) for _, target in named)),
            constant=routes.constant,
            is_halted=routes.is_halted,
            tokens=_ends(routes.tokens),
            feedback_tokens=_ends(routes.feedback_tokens),
            others=_ends(routes.other_tokens),
            log=routes.log,
        )
        if routes.champion is not None and champion is None:
            lineup = _without_champion(routes, lineup, before)
        self.lineup = lineup
        tried = [(role, target, self._bad.get(_key(routes, target))) for role, target in named]
        self.refused = tuple(
            msgspec.structs.replace(bad.told, role=role)
            for role, _, bad in tried
            if bad is not None
        )
        if lineup.champion is champion:
            self._forget(routes, before.champion)
        if all(bad is not None or loaded(target) is not None for _, target, bad in tried):
            self._seen_epoch = routes.epoch

    def _open(self, routes: Routes, target: Target) -> LoadedBundle:
        home = self.folder / BUNDLES
        folder = self.folder / target.bundle
        if folder.resolve().parent != home.resolve():
            raise IntegrityError(
                "bundle.unreadable",
                f"The bundle path {target.bundle[:60]!r} leads out of the bundles folder.",
                hint="Write it as bundles/<version id>.",
            )
        loaded = open_bundle(folder, key_bytes(routes.public_key))
        found = loaded.bundle
        if (found.version_id, found.deployment) != (target.version_id, routes.deployment):
            # A sealed bundle of an older version must not pass for a newer one.
            raise IntegrityError(
                "bundle.other_version",
                f"The bundle {folder.name} holds version {found.version_id} of {found.deployment}.",
                hint="Write the bundle again from the registry.",
            )
        return loaded

    def _forget(self, routes: Routes, before: Scorer | None) -> None:
        if before is not self.lineup.champion:
            self._replaced = before
        kept = {target.version_id for _, target in _named(routes)}
        if self._replaced is not None:
            kept.add(self._replaced.loaded.bundle.version_id)
        for key in [key for key in self._resident if key[0] not in kept]:
            # Requests in flight still hold it; the model's memory goes with the last of them.
            self._resident.pop(key).close()
        for key in [key for key in self._bad if key[0] not in kept]:
            del self._bad[key]

    def _refuse_routes(self, error: Exception) -> None:
        code = error.code if isinstance(error, EverloopError) else "routes.unreadable"
        refusal = RefusedBundle(role="routes", version_id="", code=code, message=str(error)[:500])  # type: ignore[arg-type]
        self.refused = (refusal,)
        self._seen_epoch = self.lineup.epoch

    def _report(self) -> None:
        if self._worker is None:
            return  # before the fork: nobody answers yet
        applied = Applied(
            epoch=self.lineup.epoch,
            seen_epoch=self._seen_epoch,
            at=self._clock.now(),
            pid=os.getpid(),
            refused=self.refused,
        )
        told = self._told
        if told is None or applied != msgspec.structs.replace(told, at=applied.at):
            self._told = applied
            write_applied(self.folder, self._worker, applied)


def _ends(tokens: Iterable[TokenHash]) -> dict[str, Instant]:
    return {token.hash: token.expires_at for token in tokens}


def _canary(target: CanaryTarget | None, scorer: Scorer | None) -> Canary | None:
    if target is None or scorer is None:
        return None
    return Canary(scorer=scorer, share=target.share, salt=target.salt)


def _without_champion(routes: Routes, wanted: Lineup, before: Lineup) -> Lineup:
    """Return what answers while the champion of the routes is not loaded: what did before.

    Who may ask, and a kill switch's constant, are as the routes say in any case.
    """
    if before.champion not in before.resident:  # none, or a stand-in
        champion = None if routes.constant is None else _stand_in(routes)
        return replace(wanted, champion=champion, canary=None, shadow=None, resident=())
    kept = replace(
        before,
        constant=wanted.constant,
        is_halted=wanted.is_halted,
        tokens=wanted.tokens,
        feedback_tokens=wanted.feedback_tokens,
        others=wanted.others,
        log=wanted.log,
        common={},
    )
    if wanted.is_halted:
        kept = replace(kept, canary=None, shadow=None)
    return kept if wanted.constant is None else replace(kept, epoch=wanted.epoch)


def _stand_in(routes: Routes) -> Scorer | None:
    """Return what reads requests where a constant answers them and no version can be loaded."""
    told, champion = routes.stand_in, routes.champion
    if told is None or champion is None:
        return None
    bundle = Bundle(
        deployment=routes.deployment,
        model=routes.deployment,
        version_id=champion.version_id,
        number=0,
        semver="",
        artifact=Digest(""),
        format="",
        task="regression",
        inputs=msgspec.convert(told.inputs, tuple[InputField, ...]),
        output_name=told.output,
        golden=(),
        files={},
    )
    return Scorer(LoadedBundle(bundle, _never_asked))


def _never_asked(rows: FloatArray) -> FloatArray:
    message = f"A stand-in was asked {len(rows)} rows."
    raise RuntimeError(message)


def _key(routes: Routes, target: Target) -> _Key:
    return target.version_id, routes.public_key


def _named(routes: Routes) -> list[tuple[str, Target]]:
    """Return the versions that routes name, by what they are there; the champion first."""
    targets = {
        "champion": routes.champion,
        "canary": routes.canary,
        "shadow": routes.shadow,
        "previous": routes.previous,
    }
    return [(role, target) for role, target in targets.items() if target is not None]


def _to_bad(role: str, target: Target, error: Exception, look: Look) -> _Bad:
    if isinstance(error, EverloopError):
        code, message = error.code, error.message
    else:
        code, message = "bundle.unreadable", f"{type(error).__name__}: {error}"
    told = RefusedBundle(role=role, version_id=target.version_id, code=code, message=message[:500])
    # Of what the machine lacked at that moment, the files tell nothing.
    may_pass = isinstance(error, MemoryError | OSError) or isinstance(error.__cause__, OSError)
    return _Bad(told, None if may_pass else look)


def _look_of(folder: Path) -> Look:
    """Return how the files of a bundle look from outside: names, sizes and times."""
    found = []
    try:
        for path in sorted(folder.rglob("*")):
            stat = path.stat()
            found.append((str(path), stat.st_size, stat.st_mtime_ns, stat.st_ino))
    except OSError:
        return ()
    return tuple(found)


def _distinct(*scorers: Scorer | None) -> tuple[Scorer, ...]:
    return tuple(dict.fromkeys(scorer for scorer in scorers if scorer is not None))
