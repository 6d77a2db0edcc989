"""What a handler gets: a View to read by, or a Work that also collects what it changes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import TypeVar

import msgspec

from everloop.core.clock import Clock, Instant
from everloop.core.digest import CONTENT, Digest, digests_in, record_digest
from everloop.core.errors import InvalidInput, NotFound
from everloop.core.ids import Id, IdSource, ProjectId
from everloop.core.ports import BlobStore, Condition, Signer, Transaction, where
from everloop.core.records import R, Record, canonical_record, kind_of, record
from everloop.core.search import All, Any, Compare, Filter, Has, Not, Order, Page, Test
from everloop.kernel.authz import Caller
from everloop.kernel.condemned import has_condemned, rescue
from everloop.kernel.holdings import ProjectBlobs
from everloop.kernel.ledger.log import Change
from everloop.kernel.lineage import Edge
from everloop.kernel.safe_load import LoadPolicy

EDGES_A_QUERY = 500
DECIDED = "decision:evidence"
"""What an entry names when evidence decided something, so that it is found among many looks."""
S = TypeVar("S", bound=msgspec.Struct)
_NAMES_BYTES = CONTENT.encode()


@record("project_settings", index=(("project", "number"),), unique=(("project", "number"),))
class ProjectSettings(Record, frozen=True, kw_only=True):
    """One accepted state of a project's configuration file; the highest number is in force.

    Attributes:
        document: The file's content as JSON; the face that reads the file has checked it.
    """

    project: ProjectId
    number: int
    document: dict[str, object]
    at: Instant


@dataclass(frozen=True, slots=True)
class Services:
    """The ports that handlers may use, wired once by the composition root.

    Attributes:
        signers: By key name: ``ledger`` and ``evaluator``.
        random_bytes: Cryptographic randomness.
    """

    clock: Clock
    ids: IdSource
    blobs: BlobStore
    signers: Mapping[str, Signer]
    policy: LoadPolicy
    random_bytes: Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class View:
    """Read access to one project within one snapshot."""

    tx: Transaction
    caller: Caller
    project: ProjectId
    services: Services

    def find(self, kind: type[R], key: Id) -> R | None:
        """Return the row with this id if it belongs to the project at hand, or None."""
        found = self.tx.find(kind, key)
        return found if found is not None and self._is_visible(found) else None

    def get(self, kind: type[R], key: Id) -> R:
        """Return the row with this id.

        Raises:
            NotFound: ``<kind>.not_found``, also when it belongs to another project.
        """
        found = self.find(kind, key)
        if found is None:
            name = kind_of(kind).name
            raise NotFound(
                f"{name}.not_found",
                f"There is no {name.replace('_', ' ')} {str(key)[:60]!r}.",
                hint="List what exists, or check the id for typing errors.",
            )
        return found

    def select(
        self,
        kind: type[R],
        *conditions: Condition,
        order: str = "id",
        descending: bool = False,
        limit: int | None = None,
        after: R | None = None,
    ) -> list[R]:
        """Return rows of this project; see ``Transaction.select``."""
        own = where(project=self.project) if _has_project(kind) else ()
        return self.tx.select(
            kind, *own, *conditions, order=order, descending=descending, limit=limit, after=after
        )

    def page(
        self,
        kind: type[R],
        *conditions: Condition,
        limit: int,
        after: str | None,
        order: str = "id",
        descending: bool = False,
    ) -> tuple[list[R], str | None]:
        """Return one page of rows and the cursor of the next one: the id of its last row.

        Sorted by id, the place of a row stays when the row goes.

        Raises:
            InvalidInput: ``query.cursor_invalid`` when that row is gone and the order is another.
        """
        last: R | None = None
        if after and order == "id":
            beyond = Condition("id", Compare.LT if descending else Compare.GT, after)
            conditions = (*conditions, beyond)
        elif after:
            last = self.find(kind, Id(after))
            if last is None:
                raise InvalidInput(
                    "query.cursor_invalid",
                    "The row with which the page before ended is not there.",
                    hint="Leave `after` out, to begin at the first page.",
                )
        found = self.select(
            kind,
            *conditions,
            order=order,
            descending=descending,
            limit=limit + 1,
            after=last,
        )
        more = found[limit - 1].id if len(found) > limit else None
        return found[:limit], more

    def first(self, kind: type[R], *conditions: Condition) -> R | None:
        """Return the first row that meets the conditions, or None."""
        found = self.select(kind, *conditions, limit=1)
        return found[0] if found else None

    def values(
        self, kind: type[Record], fields: Sequence[str], *conditions: Condition
    ) -> list[tuple[object, ...]]:
        """Return some fields of rows of this project; see ``Transaction.values``."""
        own = where(project=self.project) if _has_project(kind) else ()
        return self.tx.values(kind, fields, *own, *conditions)

    def count(self, kind: type[Record], *conditions: Condition) -> int:
        """Return how many rows of this project meet the conditions."""
        own = where(project=self.project) if _has_project(kind) else ()
        return self.tx.count(kind, *own, *conditions)

    def distinct(
        self, kind: type[Record], field: str, *conditions: Condition, limit: int
    ) -> list[str]:
        """Return the first of the different texts that a field has in rows of this project."""
        own = where(project=self.project) if _has_project(kind) else ()
        return self.tx.distinct(kind, field, *own, *conditions, limit=limit)

    def search(
        self,
        kind: type[R],
        filter: Filter,
        *,
        order: Sequence[Order] = (),
        limit: int,
        after: str | None = None,
    ) -> Page[R]:
        """Return rows of this project that meet a filter; see ``Transaction.search``.

        Rows of other projects do not count as belonging to a row either.
        """
        return self.tx.search(
            kind,
            self._within(kind, filter),
            order=[
                each
                if each.via is None
                else replace(each, via=replace(each.via, filter=self._of_own(each.via)))
                for each in order
            ],
            limit=limit,
            after=after,
        )

    def _of_own(self, has: Has) -> Filter:
        return self._within(has.kind, has.filter)

    def _within(self, kind: type[Record], filter: Filter) -> Filter:
        inner = self._scoped(filter)
        if not _has_project(kind):
            return inner
        return All((Test("project", Compare.EQ, self.project), inner))

    def _scoped(self, filter: Filter) -> Filter:
        match filter:
            case Has():
                return replace(filter, filter=self._of_own(filter))
            case All(parts=parts):
                return All(tuple(self._scoped(part) for part in parts))
            case Any(parts=parts):
                return Any(tuple(self._scoped(part) for part in parts))
            case Not(part=part):
                return Not(self._scoped(part))
        return filter

    def settings(self) -> dict[str, object]:
        """Return the project's configuration in force; empty before the first one."""
        found = self.tx.select(
            ProjectSettings, *where(project=self.project), order="number", descending=True, limit=1
        )
        return found[0].document if found else {}

    def model_settings(self, model_name: str, section: str, shape: type[S]) -> S:
        """Return one section of a model's configuration, with the defaults of its type.

        Raises:
            InvalidInput: ``settings.invalid`` when the stored section does not fit.
        """
        models = self.settings().get("models")
        model = models.get(model_name) if isinstance(models, dict) else None
        value = model.get(section) if isinstance(model, dict) else None
        try:
            return msgspec.convert(value if value is not None else {}, shape)
        except msgspec.ValidationError as error:
            raise InvalidInput(
                "settings.invalid",
                f"models.{model_name}.{section} in the project's configuration: {error}.",
                hint="Correct everloop.yaml and run `everloop up` or `everloop configure` again.",
            ) from error

    def _is_visible(self, row: Record) -> bool:
        return getattr(row, "project", self.project) == self.project


def _has_project(kind: type[Record]) -> bool:
    return "project" in kind.__struct_fields__


@dataclass(frozen=True, slots=True)
class Work(View):
    """A View that also changes rows; kernel and ledger see everything that passes through.

    Attributes:
        now: The instant of this call.
        request: Id of this call.
        reason: Why the caller does it, in their words; None when not given.
        notes: What the entry's payload says beside the changes; it asks for an entry by itself.
        condemned: Whether any bytes await collection, once that was looked up.
        own: The project's bytes; None for an instance verb, which belongs to no project.
    """

    now: Instant
    request: str
    reason: str | None
    changes: list[Change] = field(default_factory=list)
    refs: list[str] = field(default_factory=list)
    notes: dict[str, object] = field(default_factory=dict)
    condemned: list[bool] = field(default_factory=list, repr=False)
    own: ProjectBlobs | None = field(default=None, repr=False)

    def new_id(self) -> Id:
        """Return a fresh id."""
        return self.services.ids.new()

    def insert(self, row: R) -> R:
        """Add a row and return it.

        Raises:
            Conflict: ``record.exists``.
        """
        self.tx.insert(row)
        self._note(row, "insert")
        return row

    def replace(self, row: R) -> R:
        """Overwrite a row that was read before and return its new state.

        Raises:
            StaleVersion: somebody else was first.
        """
        fresh = self.tx.replace(row)
        self._note(fresh, "replace")
        return fresh

    def insert_many(self, rows: Sequence[Record]) -> None:
        """Add rows of one kind.

        Raises:
            Conflict: ``record.exists``.
        """
        self.tx.insert_many(rows)
        for row in rows:
            self._note(row, "insert")

    def replace_many(self, rows: Sequence[R]) -> list[R]:
        """Overwrite rows of one kind that were read before and return their new states.

        Raises:
            StaleVersion: somebody else was first.
        """
        fresh = self.tx.replace_many(rows)
        for row in fresh:
            self._note(row, "replace")
        return fresh

    def delete(self, row: Record) -> None:
        """Remove a row that was read before.

        Raises:
            StaleVersion: somebody else was first.
        """
        self.tx.delete(row)
        kind = kind_of(row)
        if kind.covered:
            self.changes.append(Change(kind=kind.name, key=row.id, op="delete", digest=None))

    def link(self, source: str, relation: str, *targets: str) -> None:
        """State that ``source`` came from each target; repeating it changes nothing."""
        wanted = tuple(dict.fromkeys(targets))
        known: set[str] = set()
        for first in range(0, len(wanted), EDGES_A_QUERY):
            group = Condition("target", Compare.IN, wanted[first : first + EDGES_A_QUERY])
            ends = where(source=source, relation=relation)
            known |= {edge.target for edge in self.tx.select(Edge, *ends, group)}
        for target in wanted:
            if target not in known:
                self.insert(
                    Edge(
                        id=self.new_id(),
                        project=self.project,
                        source=source,
                        relation=relation,
                        target=target,
                        at=self.now,
                    )
                )

    def touch(self, *refs: str) -> None:
        """Name things this call is about; the first one is the entry's resource."""
        self.refs.extend(ref for ref in refs if ref not in self.refs)

    def decide(self, state: str, why: str) -> None:
        """Say what evidence decided; the entry is found among the decisions, too."""
        self.notes.update(decision=state, reason=why)
        self.touch(DECIDED)

    def claim(self, digests: Iterable[Digest]) -> None:
        """Say that stored bytes are needed which only other bytes name, such as a list of files.

        What a record names itself is claimed by inserting it. Bytes that the project does not
        hold stay whoever's they are: a text may name anything.

        Raises:
            NotFound: ``blob.not_found`` when they were collected as garbage meanwhile.
        """
        named = tuple(digests)
        if self.own is not None:
            self.own.use(named)
        if not self.condemned:
            self.condemned.append(has_condemned(self.tx))
        if self.condemned[0]:
            whole = self.services.blobs if self.own is None else self.own.whole
            for digest in named:
                if self.own is None or self.own.is_held(digest):
                    rescue(self.tx, whole, digest)

    def _note(self, row: Record, op: str) -> None:
        kind = kind_of(row)
        if kind.covered:
            text = canonical_record(row)
            if _NAMES_BYTES in text:
                self.claim(digests_in(text.decode()))
            digest = record_digest(text)
            self.changes.append(Change(kind=kind.name, key=row.id, op=op, digest=digest))


@dataclass(frozen=True, slots=True)
class Desk:
    """What the slow part of a verb gets before its transaction: ports and short snapshots."""

    caller: Caller
    project: ProjectId
    services: Services
    open_read: Callable[[], AbstractContextManager[Transaction]]

    def read(self) -> AbstractContextManager[View]:
        """Open a short read snapshot."""
        return _ReadView(self)


class _ReadView(AbstractContextManager[View]):
    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._inner = desk.open_read()

    def __enter__(self) -> View:
        tx = self._inner.__enter__()
        return View(tx, self._desk.caller, self._desk.project, self._desk.services)

    def __exit__(self, *details: object) -> bool | None:
        return self._inner.__exit__(*details)  # type: ignore[arg-type]
