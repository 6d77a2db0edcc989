"""Tags on a command line: ``KEY=VALUE``."""

from __future__ import annotations

from collections.abc import Iterable

from everloop.core.errors import InvalidInput


def parse_tags(given: Iterable[str]) -> dict[str, str]:
    """Return what ``KEY=VALUE`` texts say.

    Raises:
        InvalidInput: ``tag.invalid``.
    """
    tags = {}
    for text in given:
        key, found, value = text.partition("=")
        if not found or not key:
            raise InvalidInput(
                "tag.invalid", f"{text[:60]!r} is no tag.", hint="Write it as KEY=VALUE."
            )
        tags[key] = value
    return tags


def require_change(tags: tuple[str, ...], removed: tuple[str, ...]) -> None:
    """Refuse a command that would change nothing.

    Raises:
        InvalidInput: ``tag.none``.
    """
    if not tags and not removed:
        raise InvalidInput(
            "tag.none",
            "No tag was given.",
            hint="Give KEY=VALUE to set one, --remove KEY to drop it.",
        )
