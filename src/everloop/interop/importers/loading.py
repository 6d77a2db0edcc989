"""Writes what a source holds through verbs, so that a second import adds only what is new.

A run keeps its times, and gets an id made of the other system's: the same run comes to the same
id however often and from wherever it is read. Who imported it, when and from where is in the
ledger.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress

import msgspec
import numpy as np

from everloop.core.errors import (
    NotFound,
)
from everloop.core.ids import Id
from everloop.interop.importers.cleaning import Cleaner
from everloop.interop.importers.naming import FROM_TAG, REFUSED, imported_id
from everloop.interop.importers.report import Report
from everloop.interop.importers.source import (
    Contents,
    Skip,
    Source,
    SourceExperiment,
    SourceRun,
)
from everloop.interop.importers.storing import FileStore, Kept
from everloop.kernel.performer import Performer
from everloop.track import columns, limits
from everloop.track.columns import Columns, Ints
from everloop.track.inputs import AddInputs, NamedData, RunExtended
from everloop.track.lifecycle import (
    CreateExperiment,
    ExperimentShown,
    RunNamed,
    RunShown,
    ShowExperiment,
    TagExperiment,
)
from everloop.track.model import RunStatus
from everloop.track.queries import (
    ReadHistory,
    RunDetails,
    RunHistory,
    ShowRun,
)
from everloop.track.verbs import (
    ArtifactFile,
    Ending,
    LogRun,
    MetricSeries,
    RunLogged,
    RunStarted,
    StartRun,
)

POINTS_A_BATCH = 100_000
SERIES_A_BATCH = 1_000
FILES_A_BATCH = 500
FEW_PARTS = 50
PARENT_TAG = "mlflow.parentRunId"
Tell = Callable[[str, int, int], None]


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How to import.

    Attributes:
        dry_run: Say what would be done, and change nothing.
        with_deleted: Bring in what is in the other system's trash too; it goes into ours.
        with_files: Bring in files of runs.
        with_models: Bring in registered models.
    """

    dry_run: bool = False
    with_deleted: bool = False
    with_files: bool = True
    with_models: bool = True


class Importer:
    """Imports one source into one project."""

    def __init__(
        self, performer: Performer, source: Source, options: Options, tell: Tell | None = None
    ) -> None:
        self._performer = performer
        self._source = source
        self._options = options
        self._tell = tell or (lambda what, done, total: None)
        self._ids: dict[str, Id] = {}
        self.report = report = Report(
            system=source.system, place=source.place, dry_run=options.dry_run
        )
        self._store = FileStore(performer, report, dry_run=options.dry_run)

    def run(self) -> Report:
        """Import everything; return what was done.

        Raises:
            EverloopError: an error that concerns more than one thing, such as a server that does
                not answer; what was imported until then stays, and a repetition goes on.
        """
        begun = time.perf_counter()
        try:
            self._import_all()
        finally:
            self._source.close()
        self.report.seconds = round(time.perf_counter() - begun, 3)
        return self.report

    def _import_all(self) -> None:
        for experiment in self._source.experiments():
            self._guard(f"experiment {experiment.name}", self._experiment, experiment)
        runs = _parents_first(self._source.runs())
        for number, run in enumerate(runs):
            self._tell("runs", number, len(runs))
            self._guard(f"run {run.id}", self._run, run)
        self._tell("runs", len(runs), len(runs))
        if self._options.with_models:
            from everloop.interop.importers.models import ModelImporter

            ModelImporter(self._performer, self._source, self.report, self._ids).run()

    def _guard(self, what: str, do: Callable[..., None], *given: object) -> None:
        try:
            do(*given)
        except Skip as reason:
            self.report.skip(what, str(reason))
            self.report.runs.skipped += what.startswith("run ")
        except REFUSED as error:
            self.report.skip(what, f"{error.message} {error.hint}".strip())
            self.report.runs.skipped += what.startswith("run ")

    # --- experiments

    def _experiment(self, there: SourceExperiment) -> None:
        counts = self.report.experiments
        if there.is_deleted and not self._options.with_deleted:
            counts.skipped += 1
            raise Skip("it is in the trash there; --with-deleted brings it in")
        tags = Cleaner(self.report, f"experiment {there.name}").tags(there.tags)
        tags[FROM_TAG] = f"{self._source.system}:{there.id}"
        try:
            here = self._performer.perform(
                "experiment.show", ShowExperiment(name=there.name), ExperimentShown
            ).experiment
        except NotFound:
            counts.new += 1
            if not self._options.dry_run:
                ask = CreateExperiment(name=limits.check_experiment(there.name), tags=tags)
                self._performer.perform("experiment.create", ask, ExperimentShown)
            return
        missing = {key: value for key, value in tags.items() if key not in here.tags}
        if not missing or here.deleted_at is not None:
            counts.same += 1
            return
        counts.changed += 1
        if not self._options.dry_run:
            tag = TagExperiment(experiment=here.id, tags=missing)
            self._performer.perform("experiment.tag", tag, ExperimentShown)

    # --- runs

    def _run(self, there: SourceRun) -> None:
        if there.is_deleted and not self._options.with_deleted:
            raise Skip("it is in the trash there; --with-deleted brings it in")
        key = imported_id(self._performer.project, self._source.system, there.id, there.started_at)
        here = self._find(key)
        contents = there.read()
        if here is None:
            self._new_run(key, there, contents)
            self.report.runs.new += 1
        elif here.run.deleted_at is not None:
            self.report.runs.same += 1
        elif self._add_news(here, there, contents):
            self.report.runs.changed += 1
        else:
            self.report.runs.same += 1
        self._ids[there.id] = key

    def _find(self, key: Id) -> RunDetails | None:
        with suppress(NotFound):
            return self._performer.perform("run.show", ShowRun(run=key), RunDetails)
        return None

    def _new_run(self, key: Id, there: SourceRun, contents: Contents) -> None:
        cleaner = Cleaner(self.report, f"run {there.id}")
        params, tags = cleaner.params(contents.params), self._tags(there, contents, cleaner)
        parent = self._ids.get(there.parent) if there.parent else None
        if there.parent and parent is None:
            self.report.skip(f"run {there.id}", f"its parent {there.parent} was not imported")
        start = StartRun(
            run=key,
            experiment=there.experiment,
            name=there.name[: limits.MAX_NAME_CHARS],
            parent=parent,
            params=params,
            tags=tags,
            started_at=there.started_at,
            code_commit=_commit(there.code_commit),
        )
        self.report.params += len(params)
        self.report.tags += len(tags)
        if not self._options.dry_run:
            self._performer.perform("run.start", start, RunStarted)
        files = self._files(there, {}, cleaner)
        ending = None
        if there.status is not RunStatus.RUNNING:
            ending = Ending(status=there.status, error=there.error, ended_at=there.ended_at)
        self._log(key, cleaner.series(contents.metrics), files, ending)
        self._add_inputs(key, contents)
        if there.is_deleted and not self._options.dry_run:
            self._performer.perform("run.delete", RunNamed(run=key), RunShown)

    def _add_news(self, here: RunDetails, there: SourceRun, contents: Contents) -> bool:
        """Add what the run got since the last import; tell whether there was anything."""
        cleaner = Cleaner(self.report, f"run {there.id}")
        given = cleaner.params(contents.params)
        params = {key: value for key, value in given.items() if key not in here.run.params}
        tags = {
            key: value
            for key, value in self._tags(there, contents, cleaner).items()
            if here.run.tags.get(key) != value
        }
        series = self._new_points(here, cleaner.series(contents.metrics))
        files = self._files(there, self._store.kept(here.run.id), cleaner)
        ending = None
        if here.run.status is RunStatus.RUNNING and there.status is not RunStatus.RUNNING:
            ending = Ending(status=there.status, error=there.error, ended_at=there.ended_at)
        added = self._add_inputs(here.run.id, contents)
        if not (params or tags or series or files or ending):
            return added > 0
        self.report.params += len(params)
        self.report.tags += len(tags)
        self._log(here.run.id, series, files, ending, params=params, tags=tags)
        return True

    def _add_inputs(self, run: Id, contents: Contents) -> int:
        if not contents.inputs or self._options.dry_run:
            return 0
        data = tuple(
            NamedData(
                name=read.name,
                digest=read.digest,
                source_type=read.source_type,
                source=read.source,
                schema=read.schema or None,
                profile=read.profile or None,
                tags=dict(read.tags),
            )
            for read in contents.inputs
        )
        ask = AddInputs(run=run, data=data)
        return self._performer.perform("run.add_inputs", ask, RunExtended).added

    def _new_points(self, here: RunDetails, series: dict[str, Columns]) -> dict[str, Columns]:
        counts = {metric.key: metric.count for metric in here.metrics}
        return {
            key: self._without_known(here.run.id, key, points, counts.get(key, 0))
            for key, points in series.items()
            if counts.get(key, 0) < len(points.steps)
        }

    def _without_known(self, run: Id, key: str, points: Columns, count: int) -> Columns:
        if count == 0:
            return points
        ask = ReadHistory(run=run, key=key, max_points=0)
        known = self._performer.perform("run.history", ask, RunHistory)
        if known.sampled:  # too long to compare point by point: history only grows at its end
            return _part(points, slice(count, None))
        seen = Counter(
            (step, repr(float(value)))
            for step, value in zip(known.steps, known.values, strict=True)
        )
        fresh = []
        for place in range(len(points.steps)):
            point = (int(points.steps[place]), repr(float(points.values[place])))
            if seen[point] > 0:
                seen[point] -= 1
            else:
                fresh.append(place)
        return _part(points, np.array(fresh, dtype=np.int64))

    def _tags(self, there: SourceRun, contents: Contents, cleaner: Cleaner) -> dict[str, str]:
        tags = cleaner.tags(contents.tags)
        tags[FROM_TAG] = f"{self._source.system}:{there.id}"
        if there.parent and there.parent in self._ids and PARENT_TAG in tags:
            # What reads this tag looks for a run of this instance.
            tags[PARENT_TAG] = self._ids[there.parent]
        return tags

    def _files(self, there: SourceRun, kept: Kept, cleaner: Cleaner) -> list[ArtifactFile]:
        files = list(self._store.store_texts(cleaner.long_texts, kept))
        return files + list(self._store.store_run(there, kept) if self._options.with_files else ())

    def _log(
        self,
        run: Id,
        series: dict[str, Columns],
        files: list[ArtifactFile],
        ending: Ending | None,
        *,
        params: dict[str, str] | None = None,
        tags: dict[str, str] | None = None,
    ) -> None:
        """Log in as few batches as fit; the last one says how the run ended."""
        self.report.points += sum(len(points.steps) for points in series.values())
        if self._options.dry_run:
            return
        batches = [LogRun(run=run, metrics=batch, amend=True) for batch in _metric_batches(series)]
        batches += [
            LogRun(run=run, artifacts=tuple(files[at : at + FILES_A_BATCH]), amend=True)
            for at in range(0, len(files), FILES_A_BATCH)
        ]
        if len(batches) > 1 and len(batches[-1].artifacts) + len(batches[0].metrics) < FEW_PARTS:
            # Most runs are small: one commit for all of it.
            batches[-1] = msgspec.structs.replace(batches[-1], metrics=batches.pop(0).metrics)
        last = batches.pop() if batches else LogRun(run=run, amend=True)
        last = msgspec.structs.replace(last, params=params or {}, tags=tags or {}, ending=ending)
        if ending or last.metrics or last.artifacts or last.params or last.tags:
            batches.append(last)
        for batch in batches:
            self._performer.perform("run.log", batch, RunLogged)


def _part(points: Columns, chosen: slice | Ints) -> Columns:
    return Columns(points.steps[chosen], points.times_us[chosen], points.values[chosen])


def _metric_batches(series: dict[str, Columns]) -> Iterator[tuple[MetricSeries, ...]]:
    batch: list[MetricSeries] = []
    points = 0
    for key, whole in series.items():
        for at in range(0, len(whole.steps), POINTS_A_BATCH):
            part = _part(whole, slice(at, at + POINTS_A_BATCH))
            count = len(part.steps)
            if batch and (points + count > POINTS_A_BATCH or len(batch) >= SERIES_A_BATCH):
                yield tuple(batch)
                batch, points = [], 0
            batch.append(MetricSeries(key=key, data=columns.encode(part)))
            points += count
    if batch:
        yield tuple(batch)


def _parents_first(runs: list[SourceRun]) -> list[SourceRun]:
    """Return the runs by start, but each parent before its children."""
    by_id = {run.id: run for run in runs}
    placed: dict[str, SourceRun] = {}
    for run in sorted(runs, key=lambda each: (each.started_at, each.id)):
        chain = [run]
        while (above := chain[-1].parent) in by_id and above not in placed:
            if any(each.id == above for each in chain):
                break  # a circle: nobody is first
            chain.append(by_id[str(above)])
        for each in reversed(chain):
            placed.setdefault(each.id, each)
    return list(placed.values())


def _commit(text: str | None) -> str | None:
    return text if text and text.isalnum() and len(text) <= 64 else None
