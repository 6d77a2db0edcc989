"""Writes logged models: their files, parameters, tags and what was measured on them.

A model that was begun and not finished, because an import ended in between, is gone on with; a
finished one never changes again.
"""

from __future__ import annotations

from collections.abc import Callable

from everloop.core.clock import to_text
from everloop.core.errors import NotFound
from everloop.core.ids import Id
from everloop.interop.importers.cleaning import Cleaner
from everloop.interop.importers.naming import (
    CREATED_TAG,
    DAMAGED,
    FROM_TAG,
    REFUSED,
    imported_id,
)
from everloop.interop.importers.report import Report
from everloop.interop.importers.source import Skip, Source, SourceLoggedModel
from everloop.interop.importers.storing import FileStore
from everloop.kernel.performer import Performer
from everloop.registry.folders import (
    CreateLoggedModel,
    FinishLoggedModel,
    Measured,
    MeasuredCount,
    MeasureLoggedModels,
    NameLoggedModel,
    PutLoggedFile,
)
from everloop.registry.logged import LoggedModel, LoggedStatus
from everloop.registry.logged_queries import LoggedModelView, ShowLoggedModel
from everloop.track.experiments import ExperimentShown, ShowExperiment


class LoggedImporter:
    """Imports the logged models of one source, after its runs."""

    def __init__(
        self,
        performer: Performer,
        source: Source,
        report: Report,
        runs: dict[str, Id],
        *,
        with_files: bool,
        with_deleted: bool,
        tell: Callable[[str, int, int], None],
    ) -> None:
        self._performer = performer
        self._source = source
        self._report = report
        self._runs = runs
        self._with_files = with_files
        self._with_deleted = with_deleted
        self._tell = tell
        self._store = FileStore(performer, report, dry_run=report.dry_run)

    def run(self) -> None:
        """Import all logged models."""
        models = self._source.logged_models()
        for number, model in enumerate(models, 1):
            try:
                self._model(model)
            except Skip as reason:
                self._refuse(model, str(reason))
            except REFUSED as error:
                self._refuse(model, f"{error.message} {error.hint}".strip())
            except DAMAGED as error:
                self._refuse(model, f"it is damaged: {str(error)[:200]}")
            self._tell("logged models", number, len(models))

    def _refuse(self, there: SourceLoggedModel, why: str) -> None:
        self._report.logged_models.skipped += 1
        self._report.skip(f"logged model {there.id}", why)

    def _model(self, there: SourceLoggedModel) -> None:
        if there.is_deleted and not self._with_deleted:
            message = "it is in the trash there; --with-deleted brings it in"
            raise Skip(message)
        origin = f"{self._source.system}:{there.id}"
        key = imported_id(self._performer.project, "logged", origin, there.created_at)
        known = self._find(key)
        if known is not None and known.status is not LoggedStatus.PENDING:
            self._report.logged_models.same += 1
            return
        if self._report.dry_run:
            list(self._store.store(there.files(), {}) if self._with_files else ())
            self._report.logged_models.new += 1
            return
        if known is None:
            self._begin(key, origin, there)
        if self._with_files:
            self._put_files(key, there)
        self._measure(key, there)
        # A model whose files were left out is never ready: there is nothing to seal.
        status = there.status if self._with_files else LoggedStatus.FAILED
        if status is not LoggedStatus.PENDING:
            ask = FinishLoggedModel(model=key, status=status)
            self._performer.perform("logged_model.finish", ask, LoggedModel)
        if there.is_deleted:
            self._performer.perform("logged_model.delete", NameLoggedModel(model=key), LoggedModel)
        if known is None:
            self._report.logged_models.new += 1
        else:
            self._report.logged_models.changed += 1

    def _find(self, key: Id) -> LoggedModel | None:
        try:
            ask = ShowLoggedModel(model=key, trashed=True)
            return self._performer.perform("logged_model.show", ask, LoggedModelView).model
        except NotFound:
            return None

    def _begin(self, key: Id, origin: str, there: SourceLoggedModel) -> None:
        what = f"logged model {there.id}"
        cleaner = Cleaner(self._report, what)
        run = self._runs.get(there.run) if there.run else None
        if there.run and run is None:
            self._report.skip(what, f"its run {there.run} was not imported")
        experiment = self._performer.perform(
            "experiment.show", ShowExperiment(name=there.experiment), ExperimentShown
        ).experiment
        tags = cleaner.tags(there.tags)
        tags |= {FROM_TAG: origin, CREATED_TAG: to_text(there.created_at)}
        ask = CreateLoggedModel(
            model=key,
            experiment=experiment.id,
            run=run,
            name=there.name[:100],
            kind=there.kind[:100],
            params=cleaner.params(there.params),
            tags=tags,
        )
        self._performer.perform("logged_model.create", ask, LoggedModel)

    def _put_files(self, key: Id, there: SourceLoggedModel) -> None:
        for file in self._store.store(there.files(), {}):
            ask = PutLoggedFile(
                model=key, path=file.path, digest=file.digest, size_bytes=file.size_bytes
            )
            self._performer.perform("logged_model.put", ask, LoggedModel)

    def _measure(self, key: Id, there: SourceLoggedModel) -> None:
        by_run: dict[Id, list[Measured]] = {}
        for metric in there.metrics:
            run = self._runs.get(metric.run or "")
            if run is None:
                self._report.skip(
                    f"logged model {there.id}, metric {metric.key}", "its run was not imported"
                )
                continue
            by_run.setdefault(run, []).append(
                Measured(
                    model=key,
                    key=metric.key,
                    text=metric.text,
                    step=metric.step,
                    time_us=max(metric.time_us, 0),
                    dataset_name=metric.dataset_name,
                    dataset_digest=metric.dataset_digest,
                )
            )
        for run, metrics in by_run.items():
            for at in range(0, len(metrics), 1_000):
                ask = MeasureLoggedModels(run=run, metrics=tuple(metrics[at : at + 1_000]))
                self._performer.perform("logged_model.measure", ask, MeasuredCount)
