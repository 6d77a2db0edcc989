"""The rule of semantic versions of models."""

from __future__ import annotations

import pytest

from everloop.core.errors import InvalidInput
from everloop.registry.versioning import Comparison, decide_bump, override_bump


@pytest.mark.parametrize(
    ("previous", "breaks", "compared", "version", "kind"),
    [
        (None, (), Comparison(None), "1.0.0", "first"),
        ("1.4.2", ("input 'a' was removed",), Comparison(10, 0), "2.0.0", "major"),
        ("1.4.2", (), Comparison(10, 1), "1.5.0", "minor"),
        ("1.4.2", (), Comparison(None), "1.5.0", "minor"),
        ("1.4.2", (), Comparison(10, 0), "1.4.3", "patch"),
    ],
)
def test_the_version_follows_from_what_changed_for_callers(
    previous: str | None,
    breaks: tuple[str, ...],
    compared: Comparison,
    version: str,
    kind: str,
) -> None:
    bump = decide_bump(previous, breaks, compared)

    assert (str(bump.version), bump.kind) == (version, kind)


def test_the_first_version_is_the_first_whatever_is_asked() -> None:
    found = decide_bump(None, (), Comparison(None))

    assert override_bump(None, found, "major", "because") == found


def test_a_reason_of_spaces_is_none() -> None:
    with pytest.raises(InvalidInput):
        override_bump("1.0.0", decide_bump("1.0.0", (), Comparison(None)), "patch", "  ")
