"""Makes what another system calls its things usable here, and reports what was changed."""

from __future__ import annotations

from collections.abc import Mapping

from everloop.core.errors import InvalidInput
from everloop.interop.importers.report import Report
from everloop.track import limits
from everloop.track.columns import Columns

LONG_TEXTS = "imported/long-texts.json"


class Cleaner:
    """Checks texts and keys of one thing, named in the report as ``what``."""

    def __init__(self, report: Report, what: str) -> None:
        self._report = report
        self._what = what
        self.long_texts: dict[str, str] = {}

    def params(self, given: Mapping[str, str]) -> dict[str, str]:
        """Return the usable parameters; long ones are cut and kept whole in ``long_texts``."""
        return self._texts(given, "param", limits.MAX_PARAM_CHARS)

    def tags(self, given: Mapping[str, str]) -> dict[str, str]:
        """Return the usable tags; long ones are cut and kept whole in ``long_texts``."""
        return self._texts(given, "tag", limits.MAX_TAG_CHARS)

    def series(self, given: Mapping[str, Columns]) -> dict[str, Columns]:
        """Return the metrics with usable names."""
        usable: dict[str, Columns] = {}
        for key, points in given.items():
            try:
                limits.check_key(key, "Metric")
            except InvalidInput as error:
                self._skip(f"metric {str(key)[:100]!r}", error.message)
            else:
                usable[key] = points
        return usable

    def _texts(self, given: Mapping[str, str], kind: str, most: int) -> dict[str, str]:
        usable: dict[str, str] = {}
        for key, value in given.items():
            text = value[:most]
            try:
                limits.check_texts({key: text}, kind, most)
            except InvalidInput as error:
                self._skip(f"{kind} {key[:100]!r}", error.message)
                continue
            if len(text) < len(value):
                self.long_texts[f"{kind}s.{key}"] = value
                self._skip(
                    f"{kind} {key}", f"cut, of {len(value):,} characters; whole in {LONG_TEXTS}"
                )
            usable[key] = text
        return usable

    def _skip(self, part: str, why: str) -> None:
        self._report.skip(f"{self._what}, {part}", why)
