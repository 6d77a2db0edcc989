"""Parameters and tags as rows of an index, kept in step with the run that holds them.

Whoever changes ``Run.params`` or ``Run.tags`` does it through ``insert_run`` and ``replace_run``;
whoever searches by them asks for ``field_filter``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import msgspec

from everloop.core.ids import Id
from everloop.core.ports import where
from everloop.core.search import All, Compare, Filter, Has, Link, Test
from everloop.kernel.unit_of_work import Work
from everloop.track.model import HEAD_CHARS, Run, RunField

PARAM: Final = "param"
TAG: Final = "tag"


def insert_run(work: Work, run: Run) -> Run:
    """Add a run and what search finds it by."""
    work.insert(run)
    _keep(work, run, PARAM, {}, run.params)
    _keep(work, run, TAG, {}, run.tags)
    return run


def replace_run(work: Work, before: Run, after: Run) -> Run:
    """Overwrite a run that was read as ``before``, and what search finds it by.

    When a run began never changes, for the rows of the index repeat it.

    Raises:
        StaleVersion: somebody else was first.
    """
    fresh = work.replace(after)
    _keep(work, after, PARAM, before.params, after.params)
    _keep(work, after, TAG, before.tags, after.tags)
    return fresh


def field_filter(space: str, key: str, *tests: Filter) -> Has:
    """Return the filter for runs that have a parameter or tag, whose row meets all tests."""
    of_key = (Test("space", Compare.EQ, space), Test("key", Compare.EQ, key))
    return Has(RunField, Link("run"), All((*of_key, *tests)))


def equals(value: str) -> Filter:
    """Return the test of a field's row for exactly this value, which an index serves."""
    head = Test("head", Compare.EQ, value[:HEAD_CHARS])
    # A value that fills the head may go on behind it.
    return head if len(value) < HEAD_CHARS else All((head, Test("value", Compare.EQ, value)))


def begins(prefix: str) -> Filter:
    """Return the test of a field's row for values with this prefix, which an index serves."""
    head = Test("head", Compare.PREFIX, prefix[:HEAD_CHARS])
    if len(prefix) <= HEAD_CHARS:
        return head
    return All((head, Test("value", Compare.PREFIX, prefix)))


def number_in(value: str) -> float | None:
    """Return the finite number that a text spells, or None when it is none."""
    if len(value) > HEAD_CHARS or not value.isascii() or "_" in value or value != value.strip():
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def make_field(id: Id, run: Run, space: str, key: str, value: str) -> RunField:
    """Return the row of the index for one parameter or tag."""
    return RunField(
        id=id,
        project=run.project,
        run=run.id,
        space=space,
        key=key,
        value=value,
        head=value[:HEAD_CHARS],
        number=number_in(value),
        at=run.started_at,
    )


def _keep(
    work: Work, run: Run, space: str, before: Mapping[str, str], after: Mapping[str, str]
) -> None:
    if before == after:
        return
    added: list[RunField] = []
    for key, value in after.items():
        if before.get(key) == value:
            continue
        if key in before:
            found = _row(work, run.id, space, key)
            work.replace(
                msgspec.structs.replace(
                    found, value=value, head=value[:HEAD_CHARS], number=number_in(value)
                )
            )
            continue
        added.append(make_field(work.new_id(), run, space, key, value))
    work.insert_many(added)
    for key in before:
        if key not in after:
            work.delete(_row(work, run.id, space, key))


def _row(work: Work, run: Id, space: str, key: str) -> RunField:
    (found,) = work.select(RunField, *where(run=run, space=space, key=key))
    return found
