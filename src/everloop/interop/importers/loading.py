"""Writes what a source holds through verbs, so that a second import adds only what is new.

A run keeps its times, and gets an id made of the other system's: the same run comes to the same
id however often and from wherever it is read. Who imported it, when and from where is in the
ledger.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

import msgspec
import numpy as np

from everloop.core.errors import EverloopError, InvalidInput, NotFound
from everloop.core.ids import Id
from everloop.interop.importers.batching import (
    POINTS_A_BATCH,
    named_data,
    parents_first,
    part_of,
    to_batches,
)
from everloop.interop.importers.cleaning import Cleaner
from everloop.interop.importers.naming import DAMAGED, FROM_TAG, REFUSED, imported_id
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
from everloop.track import limits
from everloop.track.bringing import BringRuns, RunsBrought, WholeRun
from everloop.track.columns import Columns
from everloop.track.experiments import (
    CreateExperiment,
    ExperimentShown,
    ShowExperiment,
    TagExperiment,
)
from everloop.track.inputs import AddInputs, RunExtended
from everloop.track.lifecycle import RunNamed, RunShown
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
    RunLogged,
    RunStarted,
    StartRun,
)

RUNS_A_BATCH = 100
MOST_DATA = 100
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
        self._batch: list[tuple[SourceRun, WholeRun, dict[str, Columns]]] = []
        self.report = report = Report(
            system=source.system, place=source.place, dry_run=options.dry_run
        )
        self._store = FileStore(performer, report, dry_run=options.dry_run)

    def run(self) -> Report:
        """Import everything; return what was done.

        Raises:
            InvalidInput: ``import.source_damaged`` when its lists can't be read.
            EverloopError: an error that concerns more than one thing, such as a server that does
                not answer; what was imported until then stays, and a repetition goes on.
        """
        begun = time.perf_counter()
        try:
            self._import_all()
        except EverloopError:
            raise
        except DAMAGED as error:
            raise InvalidInput(
                "import.source_damaged",
                f"{self._source.place[:200]} is damaged: {str(error)[:200]}.",
                hint="Import a sound copy; what came before the damage is here.",
            ) from error
        finally:
            self._source.close()
        self.report.seconds = round(time.perf_counter() - begun, 3)
        return self.report

    def _import_all(self) -> None:
        for experiment in self._source.experiments():
            self._guard(f"experiment {experiment.name}", self._experiment, experiment)
        runs = parents_first(self._source.runs())
        for number, run in enumerate(runs):
            self._tell("runs", number, len(runs))
            self._guard(f"run {run.id}", self._run, run)
        self._flush()
        self._tell("runs", len(runs), len(runs))
        if self._options.with_models:
            from everloop.interop.importers.logged import LoggedImporter
            from everloop.interop.importers.models import ModelImporter

            given = (self._performer, self._source, self.report, self._ids)
            LoggedImporter(
                *given,
                with_files=self._options.with_files,
                with_deleted=self._options.with_deleted,
                tell=self._tell,
            ).run()
            ModelImporter(*given).run()

    def _guard(self, what: str, do: Callable[..., None], *given: object) -> None:
        try:
            do(*given)
        except Skip as reason:
            self.report.skip(what, str(reason))
            self.report.runs.skipped += what.startswith("run ")
        except REFUSED as error:
            self.report.skip(what, f"{error.message} {error.hint}".strip())
            self.report.runs.skipped += what.startswith("run ")
        except DAMAGED as error:
            self.report.skip(what, f"it is damaged: {str(error)[:200]}")
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
        self._ids[there.id] = key
        try:
            self._bring(key, there, here)
        except (Skip, *REFUSED, *DAMAGED):
            del self._ids[there.id]
            raise

    def _bring(self, key: Id, there: SourceRun, here: RunDetails | None) -> None:
        contents = there.read()
        if here is None:
            self._new_run(key, there, contents)
        elif here.run.deleted_at is not None:
            self.report.runs.same += 1
        elif self._add_news(here, there, contents):
            self.report.runs.changed += 1
        else:
            self.report.runs.same += 1

    def _find(self, key: Id) -> RunDetails | None:
        with suppress(NotFound):
            return self._performer.perform("run.show", ShowRun(run=key), RunDetails)
        return None

    def _new_run(self, key: Id, there: SourceRun, contents: Contents) -> None:
        """Put a new run into the batch if it is small, else make it by itself."""
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
        files = self._files(there, {}, cleaner)
        ending = None
        if there.status is not RunStatus.RUNNING:
            ending = Ending(status=there.status, error=there.error, ended_at=there.ended_at)
        series = cleaner.series(contents.metrics)
        self.report.params += len(params)
        self.report.tags += len(tags)
        self.report.points += sum(len(points.steps) for points in series.values())
        if self._options.dry_run:
            self.report.runs.new += 1
            return
        data = named_data(contents)
        logs = to_batches(key, series, files, ending)
        if len(logs) == 1 and len(data) <= MOST_DATA:
            whole = WholeRun(start=start, log=logs[0], data=data, deleted=there.is_deleted)
            self._batch.append((there, whole, series))
            if len(self._batch) >= RUNS_A_BATCH or self._batched_points() > POINTS_A_BATCH:
                self._flush()
            return
        self._flush()  # parents go first
        self._performer.perform("run.start", start, RunStarted)
        for log in logs:
            self._performer.perform("run.log", log, RunLogged)
        self._add_inputs(key, contents)
        if there.is_deleted:
            self._performer.perform("run.delete", RunNamed(run=key), RunShown)
        self.report.runs.new += 1

    def _batched_points(self) -> int:
        return sum(len(points.steps) for _, _, series in self._batch for points in series.values())

    def _flush(self) -> None:
        """Send the batch; where it is refused, one run after the other, to know which."""
        batch, self._batch = self._batch, []
        if not batch:
            return
        try:
            ask = BringRuns(runs=tuple(whole for _, whole, _ in batch))
            self._performer.perform("run.bring", ask, RunsBrought)
            self.report.runs.new += len(batch)
        except REFUSED as error:
            if len(batch) == 1:
                self._refuse(batch[0][0], f"{error.message} {error.hint}".strip())
                return
            self._flush_singly(batch)
        except DAMAGED as error:
            if len(batch) == 1:
                self._refuse(batch[0][0], f"it is damaged: {str(error)[:200]}")
                return
            self._flush_singly(batch)

    def _flush_singly(self, batch: list[tuple[SourceRun, WholeRun, dict[str, Columns]]]) -> None:
        for one in batch:
            self._batch = [one]
            self._flush()

    def _refuse(self, there: SourceRun, why: str) -> None:
        self.report.skip(f"run {there.id}", why)
        self.report.runs.skipped += 1
        self._ids.pop(there.id, None)

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
        if params or tags or series or files or ending:
            self.report.params += len(params)
            self.report.tags += len(tags)
            self._log(here.run.id, series, files, ending, params=params, tags=tags)
            added += 1
        if there.is_deleted and not self._options.dry_run:  # an earlier import ended before this
            self._performer.perform("run.delete", RunNamed(run=here.run.id), RunShown)
            added += 1
        return added > 0

    def _add_inputs(self, run: Id, contents: Contents) -> int:
        if not contents.inputs or self._options.dry_run:
            return 0
        ask = AddInputs(run=run, data=named_data(contents))
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
            return part_of(points, slice(count, None))
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
        return part_of(points, np.array(fresh, dtype=np.int64))

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
        """Log what is new of a run that is here."""
        self.report.points += sum(len(points.steps) for points in series.values())
        if self._options.dry_run:
            return
        for log in to_batches(run, series, files, ending, params=params, tags=tags):
            self._performer.perform("run.log", log, RunLogged)


def _commit(text: str | None) -> str | None:
    return text if text and text.isalnum() and len(text) <= 64 else None
