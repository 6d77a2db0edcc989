"""Writes registered models: versions with their files, notes, tags, stages, and aliases.

The files of a version come to lie with its run, or with one made to hold them, and are sealed from
there. They are never loaded. Numbers are given here: a version keeps its own as a tag.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal, cast, get_args

from everloop.core.clock import to_text
from everloop.core.errors import Denied, NotFound
from everloop.core.ids import Id
from everloop.core.manifest import FileEntry
from everloop.interop.importers.cleaning import Cleaner
from everloop.interop.importers.naming import (
    CREATED_TAG,
    DAMAGED,
    FROM_TAG,
    REFUSED,
    imported_id,
)
from everloop.interop.importers.report import Report
from everloop.interop.importers.source import Skip, Source, SourceFile, SourceModel, SourceVersion
from everloop.interop.importers.storing import FileStore
from everloop.kernel.performer import Performer
from everloop.registry.lifecycle import CreateModel, StageVersion
from everloop.registry.model import AliasMove, Model, ModelVersion, VersionNotes
from everloop.registry.queries import ModelView, ShowModel
from everloop.registry.sealing import SealModel
from everloop.registry.search import FoundVersions, SearchVersions
from everloop.registry.verbs import MoveAlias
from everloop.track.verbs import (
    Ending,
    LogRun,
    RunLogged,
    RunStarted,
    StartRun,
)

HOLDING = "imported models"
FOLDER = "imported/models"
Stage = Literal["None", "Staging", "Production", "Archived"]
_UNUSABLE = re.compile(r"[^A-Za-z0-9._-]+|\.\.+")


class ModelImporter:
    """Imports the registered models of one source."""

    def __init__(
        self, performer: Performer, source: Source, report: Report, runs: dict[str, Id]
    ) -> None:
        self._performer = performer
        self._source = source
        self._report = report
        self._runs = runs
        self._store = FileStore(performer, report, dry_run=report.dry_run)
        self._contents: dict[frozenset[tuple[str, str]], ModelVersion] = {}

    def run(self) -> None:
        """Import all registered models."""
        for model in self._source.models():
            try:
                self._model(model)
            except REFUSED as error:
                self._report.models.skipped += 1
                self._report.skip(f"model {model.name}", f"{error.message} {error.hint}")
            except DAMAGED as error:
                self._report.models.skipped += 1
                self._report.skip(f"model {model.name}", f"it is damaged: {str(error)[:200]}")

    def _model(self, there: SourceModel) -> None:
        name = usable_name(there.name)
        if name != there.name:
            self._report.skip(f"model {there.name}", f"it is called {name} here")
        cleaner = Cleaner(self._report, f"model {there.name}")
        self._contents = {}
        known = self._known(name)
        if known is None:
            self._report.models.new += 1
            if not self._report.dry_run:
                tags = cleaner.tags(there.tags)
                tags[FROM_TAG] = f"{self._source.system}:{there.name}"
                ask = CreateModel(name=name, description=there.description, tags=tags)
                self._performer.perform("model.create", ask, Model)
        else:
            self._report.models.same += 1
        numbers: dict[int, Id] = {}
        for version in there.versions:
            what = f"model {there.name}, version {version.number}"
            origin = f"{self._source.system}:{there.name}/{version.number}"
            if known and (source := _identity(origin, version)) in known:
                numbers[version.number] = known[source]
                self._report.versions.same += 1
                continue
            try:
                numbers[version.number] = self._version(name, origin, version)
            except Skip as reason:
                self._report.versions.skipped += 1
                self._report.skip(what, str(reason))
            except REFUSED as error:
                self._report.versions.skipped += 1
                self._report.skip(what, f"{error.message} {error.hint}")
            except DAMAGED as error:
                self._report.versions.skipped += 1
                self._report.skip(what, f"it is damaged: {str(error)[:200]}")
        self._aliases(name, there, numbers, is_new=known is None)

    def _known(self, name: str) -> dict[str, Id] | None:
        """Return the imported versions that are here by their origin; None without the model."""
        found: dict[str, Id] = {}
        after: str | None = None
        try:
            self._performer.perform("model.show", ShowModel(ref=name), ModelView)
        except NotFound as missing:
            if missing.code == "model.not_found":
                return None
        while True:
            # Also those in the trash: what was deleted here does not come back by itself.
            ask = SearchVersions(name=name, deleted="all", limit=1_000, after=after)
            page = self._performer.perform("version.search", ask, FoundVersions)
            for item in page.items:
                self._contents[_content(item.version.files)] = item.version
                found[item.version.source] = item.version.id
            after = page.next
            if after is None:
                return found

    def _version(self, name: str, origin: str, there: SourceVersion) -> Id:
        files = [
            SourceFile(
                path=f"{FOLDER}/{name}/{there.number}/{file.path}",
                size_bytes=file.size_bytes,
                local=file.local,
                fetch=file.fetch,
            )
            for file in there.files()
        ]
        if not files:
            message = "its files are gone"
            raise Skip(message)
        if self._report.dry_run:
            list(self._store.store(files, {}))
            self._report.versions.new += 1
            return Id("")
        run = self._holder(origin, there)
        kept = self._store.kept(run)
        stored = tuple(self._store.store(files, kept))
        if stored:
            log = LogRun(run=run, artifacts=stored, amend=True)
            self._performer.perform("run.log", log, RunLogged)
        folder = f"{FOLDER}/{name}/{there.number}"
        twin = self._contents.get(self._content_below(run, folder))
        if twin is not None:
            self._report.versions.same += 1
            self._report.skip(
                f"version {origin}", f"its bytes are those of version {twin.number} here"
            )
            return twin.id
        cleaner = Cleaner(self._report, f"version {origin}")
        tags = cleaner.tags(there.tags)
        tags |= {FROM_TAG: origin, CREATED_TAG: to_text(there.created_at)}
        ask = SealModel(
            name=name,
            run=run,
            folder=folder,
            source=_identity(origin, there),
            description=there.description,
            tags=tags,
        )
        made = self._performer.perform("model.seal", ask, ModelVersion)
        self._contents[_content(made.files)] = made
        self._report.versions.new += 1
        if made.number != there.number:
            self._report.skip(f"version {origin}", f"it has number {made.number} here")
        if there.stage in get_args(Stage):
            stage = StageVersion(version=made.id, stage=cast("Stage", there.stage))
            try:
                self._performer.perform("version.stage", stage, VersionNotes)
            except Denied as error:
                self._report.skip(f"version {origin}, stage", f"{error.message} {error.hint}")
        return made.id

    def _content_below(self, run: Id, folder: str) -> frozenset[tuple[str, str]]:
        return frozenset(
            (path.removeprefix(f"{folder}/"), digest)
            for path, (digest, _) in self._store.kept(run).items()
            if path.startswith(f"{folder}/")
        )

    def _holder(self, origin: str, there: SourceVersion) -> Id:
        """Return the run that the version's files lie with."""
        if there.run and there.run in self._runs:
            return self._runs[there.run]
        source = _identity(origin, there)
        key = imported_id(self._performer.project, "version", source, there.created_at)
        start = StartRun(
            run=key,
            experiment=HOLDING,
            name=origin[:200],
            tags={FROM_TAG: origin},
            started_at=there.created_at,
        )
        self._performer.perform("run.start", start, RunStarted)
        ended = LogRun(run=key, amend=True, ending=Ending(ended_at=there.created_at))
        self._performer.perform("run.log", ended, RunLogged)
        return key

    def _aliases(
        self, name: str, there: SourceModel, numbers: dict[int, Id], *, is_new: bool
    ) -> None:
        if self._report.dry_run:
            return
        for alias, number in there.aliases.items():
            what = f"model {there.name}, alias {alias}"
            if number not in numbers:
                self._report.skip(what, f"version {number} was not imported")
                continue
            if not is_new and self._points_somewhere(name, alias):
                continue  # what was moved here since then stays
            why = f"Imported from {self._source.system}."
            ask = MoveAlias(model=name, alias=alias, version=numbers[number], why=why)
            try:
                self._performer.perform("model.alias", ask, AliasMove)
            except (*REFUSED, Denied) as error:
                self._report.skip(what, f"{error.message} {error.hint}")

    def _points_somewhere(self, name: str, alias: str) -> bool:
        try:
            self._performer.perform("model.show", ShowModel(ref=f"{name}@{alias}"), ModelView)
        except REFUSED:
            return False
        return True


def _content(files: Iterable[FileEntry]) -> frozenset[tuple[str, str]]:
    return frozenset((file.path, file.digest) for file in files)


def usable_name(name: str) -> str:
    """Return a model's name with what can't stand in one replaced by dashes."""
    text = _UNUSABLE.sub("-", name)[:100].strip("-._")
    return text or "model"


def _identity(origin: str, there: SourceVersion) -> str:
    """Return by what a version is known again: two servers each have a version 1 of a name."""
    made = int(there.created_at.timestamp() * 1000)
    return f"{origin}?created={made}&run={there.run or ''}"
