"""Which versions answer now: reads the routes, verifies and loads bundles, and switches at once.

A switch is one assignment of a frozen value; a request in flight finishes on what it began with.
What cannot be verified is never switched to: a bad champion keeps the state before, a bad canary
or shadow is left out. Tokens take effect in any case, so that a revoked one cannot live on behind
a broken bundle.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from everloop.core.clock import Clock, Instant
from everloop.core.errors import EverloopError, IntegrityError
from everloop.core.wire import Applied, CanaryTarget, RefusedBundle, Routes, Target
from everloop.serve.bundle import LoadedBundle, open_bundle

ROUTES_FILE = "routes.json"
APPLIED_FILE = "applied.json"
BUNDLES = "bundles"
Stamp = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Canary:
    """The canary with its share of the traffic."""

    loaded: LoadedBundle
    share: float
    salt: str


@dataclass(frozen=True, slots=True)
class Lineup:
    """The versions that answer, and the tokens that may ask, at one moment."""

    epoch: int = 0
    deployment: str = ""
    champion: LoadedBundle | None = None
    canary: Canary | None = None
    shadow: LoadedBundle | None = None
    tokens: dict[str, Instant] = field(default_factory=dict)


class Switchboard:
    """Keeps the line-up in step with the routes file.

    ``lineup`` is read by the thread that answers; ``reload`` is called by one thread at a time.
    """

    def __init__(self, folder: Path, clock: Clock, *, pinned_key: str | None = None) -> None:
        self.folder = folder
        self.lineup = Lineup()
        self.refused: tuple[RefusedBundle, ...] = ()
        self._clock = clock
        self._pinned_key = pinned_key
        self._stamp: Stamp | None = None
        self._resident: dict[tuple[str, str], LoadedBundle] = {}

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
        champion = self._load(routes, "champion", routes.champion, refused)
        if routes.champion is not None and champion is None and self.lineup.champion is not None:
            self.lineup = replace(self.lineup, tokens=tokens)
            self.refused = tuple(refused)
            return
        canary = self._load(routes, "canary", routes.canary, refused)
        shadow = self._load(routes, "shadow", routes.shadow, refused)
        self._load(routes, "previous", routes.previous, refused)
        lineup = Lineup(
            epoch=routes.epoch,
            deployment=routes.deployment,
            champion=champion,
            canary=_canary(routes.canary, canary),
            shadow=shadow,
            tokens=tokens,
        )
        replaced = self.lineup.champion
        self.lineup = lineup
        self.refused = tuple(refused)
        self._forget(routes, replaced)

    def _load(
        self, routes: Routes, role: str, target: Target | None, refused: list[RefusedBundle]
    ) -> LoadedBundle | None:
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
            self._resident[key] = loaded
            return loaded
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

    def _forget(self, routes: Routes, replaced: LoadedBundle | None) -> None:
        targets = (routes.champion, routes.canary, routes.shadow, routes.previous)
        kept = {target.version_id for target in targets if target is not None}
        if replaced is not None:
            kept.add(replaced.bundle.version_id)
        self._resident = {key: it for key, it in self._resident.items() if key[0] in kept}

    def _refuse_routes(self, error: Exception) -> None:
        code = error.code if isinstance(error, EverloopError) else "routes.unreadable"
        refusal = RefusedBundle(role="routes", version_id="", code=code, message=str(error)[:500])  # type: ignore[arg-type]
        self.refused = (refusal,)
        self._report(self.lineup.epoch)

    def _report(self, seen_epoch: int) -> None:
        applied = Applied(
            epoch=self.lineup.epoch,
            seen_epoch=seen_epoch,
            at=self._clock.now(),
            pid=os.getpid(),
            refused=self.refused,
        )
        write_atomically(self.folder / APPLIED_FILE, msgspec.json.encode(applied))


def write_atomically(path: Path, data: bytes) -> None:
    """Replace a small file so that a reader sees the old or the new one; errors are passed over.

    These files are reports for other processes: a full disk must not stop the answers.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_bytes(data)
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)


def _canary(target: CanaryTarget | None, loaded: LoadedBundle | None) -> Canary | None:
    if target is None or loaded is None:
        return None
    return Canary(loaded=loaded, share=target.share, salt=target.salt)


def _key_bytes(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        return b""
