"""The ledger as people read it: lists, one entry with its proof, its head, and verification."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from everloop.core.errors import InvalidInput, NotFound
from everloop.core.ids import is_id
from everloop.core.ports import Compare, Condition, where
from everloop.core.search import All, Any, Not, Order, Test
from everloop.govern.model import Cursor, EntryLine, Limit
from everloop.govern.starting import find_start
from everloop.govern.things import line_of
from everloop.kernel.authz import Actor, authorise
from everloop.kernel.ledger import log
from everloop.kernel.ledger.proving import (
    UNREADABLE,
    Payload,
    Prover,
    entries_about,
    get_entry,
)
from everloop.kernel.unit_of_work import View
from everloop.kernel.verbs import query

READ = "audit:read"
PAGE = 500
Text = Annotated[str, Meta(max_length=300)]


class ListEntries(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ask for ledger entries, newest first.

    Attributes:
        actor: Name or id.
        resource: Anything that the entry names or changes, as a ref; ``decision:evidence`` for
            what evidence decided.
        without: Actions to leave out, but where they were refused; not together with ``resource``.
        since: Only entries with this number or a higher one.
        whole: Those of all projects and of the instance too; needs a role on the instance.
    """

    action: Text | None = None
    actor: Text | None = None
    resource: Text | None = None
    outcome: Text | None = None
    without: Annotated[tuple[Text, ...], Meta(max_length=100)] = ()
    since: Annotated[int, Meta(ge=0)] = 0
    whole: bool = False
    limit: Limit = 100
    after: Cursor | None = None


class EntryList(Struct, frozen=True, kw_only=True):
    """One page of entries; ``next`` is the cursor of the page after it."""

    items: tuple[EntryLine, ...]
    next: str | None = None


@query("audit.list", permission=READ)
def list_entries(ask: ListEntries, view: View) -> EntryList:
    """List ledger entries, newest first, by action, actor, outcome or what they name.

    Raises:
        InvalidInput: ``audit.cursor_invalid``.
        Denied: ``access.denied`` for ``whole`` without a role on the instance.
    """
    if ask.whole:
        authorise(view.tx, view.caller, READ, None)
    before = _cursor(ask.after)
    if ask.resource:
        found = _about(ask, view, before)
    elif ask.without:
        found = _without(ask, view, before)
    else:
        older = () if before is None else (Condition("index", Compare.LT, before),)
        found = view.tx.select(
            log.LedgerEntry,
            *_conditions(ask, view),
            *older,
            order="index",
            descending=True,
            limit=ask.limit + 1,
        )
    page = found[: ask.limit]
    more = str(page[-1].index) if len(found) > ask.limit else None
    return EntryList(items=tuple(_line(view, entry) for entry in page), next=more)


def _conditions(ask: ListEntries, view: View) -> list[Condition]:
    wanted: dict[str, str | None] = {
        "action": ask.action,
        "outcome": ask.outcome,
        "actor": _actor_id(view, ask.actor) if ask.actor else None,
        "project": None if ask.whole else view.project,
    }
    equal = where(**{name: value for name, value in wanted.items() if value})
    return [*equal, Condition("index", Compare.GE, ask.since)]


def _without(ask: ListEntries, view: View, before: int | None) -> list[log.LedgerEntry]:
    """Return up to one entry more than a page of those that are not left out."""
    refused = Test("outcome", Compare.NE, "ok")
    others = Not(Test("action", Compare.IN, ask.without))
    older = () if before is None else (Test("index", Compare.LT, before),)
    tests = (Test(one.field, one.compare, one.value) for one in _conditions(ask, view))
    found = All((*tests, *older, Any((refused, others))))
    newest_first = (Order("index", descending=True),)
    return view.tx.search(log.LedgerEntry, found, order=newest_first, limit=ask.limit + 1).rows


def _about(ask: ListEntries, view: View, before: int | None) -> list[log.LedgerEntry]:
    """Return up to one entry more than a page of those that name a thing and pass the filter."""
    actor = _actor_id(view, ask.actor) if ask.actor else None
    resource = _node(view, ask.resource or "")
    found: list[log.LedgerEntry] = []
    while len(found) <= ask.limit:
        numbers = entries_about(view.tx, resource, limit=PAGE, before=before)
        if not numbers:
            break
        before = numbers[-1]
        for number in numbers:
            entry = get_entry(view.tx, number)
            if (
                number >= ask.since
                and (ask.whole or entry.project == view.project)
                and ask.action in (None, "", entry.action)
                and ask.outcome in (None, "", entry.outcome)
                and actor in (None, entry.actor)
            ):
                found.append(entry)
        if before < ask.since:
            break
    return found[: ask.limit + 1]


def _node(view: View, ref: str) -> str:
    """Return what entries call a thing: names are for people, entries hold ids."""
    kind, _, name = ref.partition(":")
    is_named = kind in {"dataset", "deployment", "model"} and not is_id(name)
    return find_start(view, ref).node if is_named else ref


def _actor_id(view: View, name: str) -> str:
    found = view.tx.select(Actor, *where(name=name), limit=1)
    return found[0].id if found else name


def _line(view: View, entry: log.LedgerEntry) -> EntryLine:
    row = view.tx.find(log.LedgerPayload, entry.id)
    return line_of(view, entry, _payload(row))


def _payload(row: log.LedgerPayload | None) -> Payload | None:
    if row is None or row.text is None:
        return None
    try:
        return msgspec.json.decode(row.text, type=Payload)
    except msgspec.MsgspecError:
        return None


def _cursor(text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()):
        raise InvalidInput(
            "audit.cursor_invalid",
            f"{text!r} is no place in the ledger.",
            hint="Take the cursor from the page before, or leave it out.",
        )
    return int(text)


class ShowEntry(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ask for one entry by its number."""

    index: Annotated[int, Meta(ge=0, lt=10**12)]


class EntryView(Struct, frozen=True, kw_only=True):
    """One entry with all that proves it; hashes in hex.

    Attributes:
        body: Canonical JSON that is hashed into the tree.
        payload: Canonical JSON of what was asked, answered and changed; None when erased.
        leaf: Hash of the body as a leaf of the tree.
        path: Hashes from the leaf up to the root (RFC 9162, section 2.1.3).
        checkpoint: The signed head that covers it.
        verified: Whether body, payload and checkpoint fit together.
        problem: Why not.
    """

    index: int
    line: EntryLine
    body: str
    payload: str | None
    leaf: str = ""
    path: tuple[str, ...] = ()
    root: str = ""
    size: int = 0
    checkpoint: str = ""
    verified: bool = False
    problem: str | None = None


@query("audit.show", permission=READ)
def show_entry(ask: ShowEntry, view: View) -> EntryView:
    """Show one entry with its payload and the proof that it is in the signed log.

    Raises:
        NotFound: ``ledger.entry_not_found``, also when it belongs to another project.
    """
    entry = get_entry(view.tx, ask.index)
    if entry.project not in ("", view.project):
        raise NotFound(
            "ledger.entry_not_found",
            f"The ledger of this project has no entry {ask.index}.",
            hint="List the entries with `everloop audit list`.",
        )
    if entry.project == "":
        authorise(view.tx, view.caller, READ, None)
    row = view.tx.find(log.LedgerPayload, entry.id)
    shown = EntryView(
        index=ask.index,
        line=_line(view, entry),
        body=entry.body,
        payload=row.text if row else None,
    )
    prover = Prover(view.tx, view.services.signers["ledger"].public_key)
    try:
        proof = prover.prove(ask.index)
        prover.payload(ask.index)
    except UNREADABLE as error:
        return msgspec.structs.replace(shown, problem=str(getattr(error, "message", error)))
    return msgspec.structs.replace(
        shown,
        leaf=proof.leaf.hex(),
        path=tuple(node.hex() for node in proof.path),
        root=proof.root.hex(),
        size=proof.size,
        checkpoint=proof.note,
        verified=True,
    )
