"""Verbs over lineage edges, declared for one test and taken away again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import msgspec

from everloop.core.errors import Conflict, StaleVersion
from everloop.core.ports import where
from everloop.kernel import verbs
from everloop.kernel.lineage import Edge
from everloop.kernel.unit_of_work import Desk, View, Work
from everloop.kernel.verbs import Payload, Scope, query, verb

ACTIONS = ("read", "write", "predict", "release", "approve", "admin")


class Note(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ask to note a text under a name; ``fail`` makes the handler stop after writing."""

    name: str
    text: str = ""
    fail: bool = False


class Noted(msgspec.Struct, frozen=True, kw_only=True):
    """How many notes there are of that name, and how often the slow part ran."""

    text: str
    count: int
    prepared: int = 0


@dataclass
class Between:
    """What happens between the slow part and the transaction, once each."""

    steps: list[Callable[[], object]] = field(default_factory=list)
    prepared: int = 0


def count(view: View, name: str) -> int:
    return view.count(Edge, *where(source=f"note:{name}"))


def write(ask: Note, work: Work) -> Noted:
    work.link(f"note:{ask.name}", "says", f"text:{ask.text}")
    if ask.fail:
        raise Conflict("note.failed", "It failed on purpose.", hint="Do not ask for it.")
    return Noted(text=ask.text, count=count(work, ask.name))


@contextmanager
def declared_for_a_test() -> Iterator[Between]:
    """Declare the verbs; afterwards the table of verbs is what it was."""
    saved = dict(verbs._VERBS)
    try:
        yield _declare(Between())
    finally:
        verbs._VERBS.clear()
        verbs._VERBS.update(saved)


def _declare(between: Between) -> Between:
    for mode in Payload:

        @verb(f"note.{mode.value}", permission="note:write", payload=mode)
        def write_note(ask: Note, work: Work) -> Noted:
            """Note a text; the same text again changes nothing."""
            work.touch(f"note:{ask.name}")
            return write(ask, work)

    @verb("note.plain", permission="note:write")
    def write_plainly(ask: Note, work: Work) -> Noted:
        """Note a text without naming what it is about."""
        return write(ask, work)

    def prepare(ask: Note, desk: Desk) -> int:
        with desk.read() as view:
            known = count(view, ask.name)
        between.prepared += 1
        if between.steps:
            between.steps.pop(0)()
        return known

    @verb("note.slow", permission="note:write", prepare=prepare)
    def write_slowly(ask: Note, work: Work, known: int) -> Noted:
        """Note a text if nobody noted another while the slow part ran."""
        if count(work, ask.name) != known:
            raise StaleVersion("note.stale", "Somebody was first.", hint="Try again.")
        done = write(ask, work)
        return msgspec.structs.replace(done, prepared=between.prepared)

    _declare_probes()
    return between


def _declare_probes() -> None:
    for action in ACTIONS:

        @query(f"probe.{action}", permission=f"probe:{action}")
        def probe(ask: Note, view: View) -> Noted:
            """Answer those who may ask."""
            return Noted(text=ask.text, count=0)

        @query(f"whole.{action}", permission=f"whole:{action}", scope=Scope.INSTANCE)
        def probe_whole(ask: Note, view: View) -> Noted:
            """Answer those who may ask of the whole instance."""
            return Noted(text=ask.text, count=0)
