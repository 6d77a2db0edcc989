"""Keeps the serving process, with the routes and bundles that the records ask for.

Everything in a serving folder but its log is a copy of the records: it can be deleted and is made
again. A serving process outlives a killed control plane and is taken over by the next one.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

import msgspec

from everloop.app.bundles import mend_bundle, personal_inputs, seal_bundle
from everloop.app.config import Config
from everloop.app.home import PRIVATE_FOLDER, Home
from everloop.app.processes import ServingProcess, find_running
from everloop.core.clock import Instant
from everloop.core.errors import EverloopError
from everloop.core.ids import ActorId, Id, ProjectId
from everloop.core.ports import Compare, Condition, where
from everloop.core.wire import FEEDBACK, PREDICT, LogRules, Routes, Target, TokenHash
from everloop.kernel.authz import (
    ACTIONS,
    EVERYWHERE,
    Actor,
    Caller,
    Project,
    RoleGrant,
    Token,
    TokenKind,
)
from everloop.kernel.ledger import log
from everloop.kernel.perform import Kernel
from everloop.kernel.unit_of_work import View
from everloop.monitor.model import LogConfig
from everloop.registry.evidence import EVALUATOR
from everloop.registry.model import Model, ModelVersion
from everloop.release.model import Deployment
from everloop.release.routes import routes_of
from everloop.serve.applied import read_applied

_LOG = logging.getLogger("everloop.serving")
OWNER_FILE = "deployment.json"
ROUTES_FILE = "routes.json"
KEPT_BUNDLES = 8
REFRESH_S = 10.0
# Changes by these verbs can change what is served or who may ask.
_ROUTED = ("deployment.", "release.", "token.", "role.", "actor.", "gate.", "project.")


class _Owner(msgspec.Struct, frozen=True, kw_only=True):
    """Whose folder it is; names may come again in another project, ids do not."""

    deployment: Id
    project: str


class Supervisor:
    """Derives routes and bundles and keeps the processes alive; used by one thread."""

    def __init__(self, home: Home, kernel: Kernel, caller: Caller, config: Config) -> None:
        self._home = home
        self._kernel = kernel
        self._caller = caller
        self._settings = config.serve
        self._process: ServingProcess | None = None
        self._seen = -1
        self._refreshed = 0.0
        self._told: set[str] = set()
        self._looked: dict[Path, Instant] = {}
        self._told_before: set[str] = set()

    def step(self) -> bool:
        """Do what there is to do; return whether the routes were derived anew."""
        is_due = self._is_due()
        if is_due:
            self.refresh()
        if self._process is not None:
            self._process.keep()
        return is_due

    def stop(self) -> None:
        """End the serving process; it finishes what it is answering."""
        process = self._process
        if process is None and find_running(self._home.serving) is not None:
            # Left by a control plane that was killed, and not taken over yet.
            process = self._take()
        if process is not None:
            process.ask_to_stop()
            process.wait()

    def _take(self) -> ServingProcess:
        return ServingProcess(
            self._home.serving,
            key=self._kernel.services.signers[EVALUATOR].public_key.hex(),
            port=self._settings.port,
            workers=self._settings.workers,
        )

    def _is_due(self) -> bool:
        """Tell whether a change since the last look may concern serving."""
        with self._kernel.store.read() as tx:
            if self._seen < 0:
                self._seen = log.size(tx)
                return True
            newer = tx.select(
                log.LedgerEntry, Condition("index", Compare.GE, self._seen), order="index"
            )
        if newer:
            self._seen = newer[-1].index + 1
        is_old = time.monotonic() - self._refreshed > REFRESH_S
        return is_old or any(entry.action.startswith(_ROUTED) for entry in newer)

    def refresh(self) -> None:
        """Write the routes and bundles that the records ask for now."""
        self._refreshed = time.monotonic()
        self._told_before, self._told = self._told, set()
        with self._kernel.store.read() as tx:
            projects = {ProjectId(row.id): row.name for row in tx.select(Project)}
            for deployment in tx.select(Deployment):
                view = View(tx, self._caller, deployment.project, self._kernel.services)
                try:
                    self._apply(view, deployment, projects[deployment.project])
                except (EverloopError, OSError) as error:
                    self._say_once(f"deployment {deployment.name}: {error}")

    def _apply(self, view: View, deployment: Deployment, project: str) -> None:
        folder = serving_folder(self._home, deployment, project)
        key = self._kernel.services.signers[EVALUATOR].public_key.hex()
        now = self._kernel.services.clock.now()
        predict, feedback, others = tokens_of(view, deployment, now)
        routes = routes_of(view, deployment, public_key=key, tokens=predict)
        routes = msgspec.structs.replace(
            routes,
            feedback_tokens=feedback,
            other_tokens=others,
            log=self._log_rules(view, deployment, routes),
        )
        targets = targets_of(routes)
        for target in targets:
            self._seal(view, deployment, target, folder)
        self._mend(view, deployment, targets, folder)
        # In any case: the server refuses what it has no bundle of, and heeds all the rest, such as
        # a revoked token, a halt or a rollback to a version that it has.
        write_routes(folder, routes)
        _prune(folder / "bundles", {target.version_id for target in targets})
        if routes.champion is not None and self._process is None:
            self._process = self._take()

    def _seal(self, view: View, deployment: Deployment, target: Target, folder: Path) -> None:
        try:
            seal_bundle(view, deployment, target.version_id, folder / target.bundle)
        except (EverloopError, OSError) as error:
            self._say_once(f"deployment {deployment.name}, version {target.version_id}: {error}")

    def _mend(
        self, view: View, deployment: Deployment, targets: list[Target], folder: Path
    ) -> None:
        """Write again what the server refused because it is damaged; look once at each refusal."""
        applied = read_applied(folder)
        if applied is None or self._looked.get(folder) == applied.at:
            return
        self._looked[folder] = applied.at
        refused = {one.version_id for one in applied.refused}
        for target in targets:
            if target.version_id in refused:
                place = folder / target.bundle
                try:
                    if mend_bundle(view, deployment, target.version_id, place):
                        _LOG.warning("The damaged bundle %s was written again.", place)
                except (EverloopError, OSError) as error:
                    self._say_once(f"{place}: {error}")

    def _log_rules(self, view: View, deployment: Deployment, routes: Routes) -> LogRules:
        """Return what is logged; what is called personal now counts for bundles sealed before."""
        config = view.model_settings(view.get(Model, deployment.model).name, "log", LogConfig)
        masked = set(config.masked)
        try:
            for target in targets_of(routes):
                masked.update(personal_inputs(view, view.get(ModelVersion, target.version_id)))
        except EverloopError as error:  # what the bundles themselves mask is masked all the same
            self._say_once(f"deployment {deployment.name}, masked columns: {error}")
        return LogRules(
            sample=config.sample,
            masked=tuple(sorted(masked)),
            max_bytes=config.max_mb * 1024 * 1024,
        )

    def _say_once(self, text: str) -> None:
        """Say what is wrong when it begins: not again while it lasts, but when it comes back."""
        if text not in self._told_before and text not in self._told:
            _LOG.error("%s", text)
        self._told.add(text)


def targets_of(routes: Routes) -> list[Target]:
    """Return the versions that routes name."""
    named = (routes.champion, routes.canary, routes.shadow, routes.previous)
    return [target for target in named if target is not None]


def serving_folder(home: Home, deployment: Deployment, project: str) -> Path:
    """Return a deployment's own folder, made if need be; a folder of another one is not touched."""
    folder = home.serve(deployment.name)
    owner = folder / OWNER_FILE
    try:
        found = msgspec.json.decode(owner.read_bytes(), type=_Owner).deployment
    except FileNotFoundError:
        found = deployment.id
    except msgspec.DecodeError:
        found = Id("")
    if found != deployment.id:
        folder = folder.with_name(f"{deployment.name}~{deployment.id}")
    for path in (folder, folder / "bundles", folder / "log"):
        path.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
    if not (folder / OWNER_FILE).exists():
        told = _Owner(deployment=deployment.id, project=project)
        _replace(folder / OWNER_FILE, msgspec.json.encode(told))
    return folder


class Tokens(NamedTuple):
    """Hashes of the good tokens of a deployment's project, by what they may do there."""

    predict: tuple[TokenHash, ...]
    feedback: tuple[TokenHash, ...]
    others: tuple[TokenHash, ...]


def tokens_of(view: View, deployment: Deployment, now: Instant) -> Tokens:
    """Return the hashes of all good tokens; one that may do two things stands in both places."""
    places = {EVERYWHERE, deployment.project}
    allowed: dict[ActorId, set[str]] = {}
    for grant in view.tx.select(RoleGrant):
        if grant.project in places:
            allowed.setdefault(grant.actor, set()).update(ACTIONS[grant.role])
    disabled = {ActorId(row.id) for row in view.tx.select(Actor, *where(disabled=True))}
    found: dict[str, list[TokenHash]] = {PREDICT: [], FEEDBACK: [], "": []}
    for token in view.tx.select(Token, *where(kind=TokenKind.API.value)):
        is_good = token.revoked_at is None and token.expires_at > now
        if not is_good or token.actor in disabled or token.project not in places:
            continue
        actions = allowed.get(token.actor, set())
        may = [
            permission
            for permission in (PREDICT, FEEDBACK)
            if permission.partition(":")[2] in actions
            and any(fnmatchcase(permission, pattern) for pattern in token.scope)
        ]
        for permission in may or [""]:
            told = TokenHash(hash=token.secret_hash, expires_at=token.expires_at)
            found[permission].append(told)
    return Tokens(*(tuple(each) for each in found.values()))


def write_routes(folder: Path, routes: Routes) -> bool:
    """Put routes in force; return whether the file changed.

    Raises:
        OSError: the file can't be written; the old one stays.
    """
    path, data = folder / ROUTES_FILE, msgspec.json.encode(routes)
    if path.exists() and path.read_bytes() == data:
        return False
    _replace(path, data)
    return True


def _replace(path: Path, data: bytes) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with draft.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def _prune(folder: Path, wanted: set[Id]) -> None:
    """Keep the newest few bundles that are not in use, for quick rollbacks; delete the others."""
    spare = [path for path in folder.iterdir() if path.is_dir() and path.name not in wanted]
    for path in sorted(spare, key=lambda path: path.stat().st_mtime)[:-KEPT_BUNDLES]:
        shutil.rmtree(path, ignore_errors=True)
