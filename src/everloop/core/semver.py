"""Semantic versions of models (semver.org 2.0.0 without pre-release parts).

For a model: major when callers break, minor when predictions change, patch when they do not.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from everloop.core.errors import InvalidInput

_PATTERN = re.compile(r"(0|[1-9]\d{0,8})\.(0|[1-9]\d{0,8})\.(0|[1-9]\d{0,8})")


class SemanticVersion(NamedTuple):
    """Three numbers that sort as versions do."""

    major: int
    minor: int
    patch: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"

    def next_major(self) -> SemanticVersion:
        """Return the next version that breaks callers."""
        return SemanticVersion(self.major + 1, 0, 0)

    def next_minor(self) -> SemanticVersion:
        """Return the next version that predicts differently."""
        return SemanticVersion(self.major, self.minor + 1, 0)

    def next_patch(self) -> SemanticVersion:
        """Return the next version that predicts the same."""
        return SemanticVersion(self.major, self.minor, self.patch + 1)


def parse_version(text: str) -> SemanticVersion:
    """Read ``1.4.0``.

    Raises:
        InvalidInput: ``version.invalid``.
    """
    match = _PATTERN.fullmatch(text)
    if match is None:
        raise InvalidInput(
            "version.invalid",
            f"{text[:40]!r} is not a semantic version.",
            hint="Write three numbers, such as 1.4.0.",
        )
    return SemanticVersion(*(int(part) for part in match.groups()))
