"""Writes registered models: versions with their files, descriptions, tags, stages and aliases."""

from __future__ import annotations

from everloop.core.ids import Id
from everloop.interop.importers.report import Report
from everloop.interop.importers.source import Source
from everloop.kernel.performer import Performer


class ModelImporter:
    """Imports the registered models of one source."""

    def __init__(
        self, performer: Performer, source: Source, report: Report, runs: dict[str, Id]
    ) -> None:
        self._performer = performer
        self._source = source
        self._report = report
        self._runs = runs

    def run(self) -> None:
        """Import all registered models."""
        for model in self._source.models():
            self._report.models.skipped += 1
            self._report.skip(f"model {model.name}", "not yet")
