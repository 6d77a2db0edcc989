"""The one way in: authorise, do the work, write lineage and ledger, all in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from typing import TypeVar

import msgspec

from everloop.core.canonical import canonical_json
from everloop.core.digest import Digest, sha256_digest
from everloop.core.errors import (
    Conflict,
    Denied,
    InvalidInput,
    NotAuthenticated,
    NotFound,
    StaleVersion,
)
from everloop.core.events import Event
from everloop.core.ids import Id, ProjectId
from everloop.core.ports import MetadataStore, Transaction, where
from everloop.kernel.authz import Caller, Project, TokenKind, access_denied, authenticate, authorise
from everloop.kernel.holdings import Holdings, ProjectBlobs
from everloop.kernel.ledger import log
from everloop.kernel.unit_of_work import Desk, Services, View, Work
from everloop.kernel.verbs import Payload, Scope, Verb, find_verb

INSTANCE = ProjectId("")
SALT_BYTES = 32
PREPARE_ATTEMPTS = 5
MAX_REQUEST_CHARS = 100
MAX_REASON_CHARS = 2_000
A = TypeVar("A", bound=msgspec.Struct)


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One call of a verb.

    Attributes:
        verb: Name of the verb.
        caller: Who calls.
        ask: Its input.
        project: Name of the project; None for instance verbs.
        request: Id of the call. Repeating a change under the same id returns the first answer.
        reason: Why, in the caller's words.
    """

    verb: str
    caller: Caller
    ask: msgspec.Struct
    project: str | None = None
    request: str | None = None
    reason: str | None = None


class Kernel:
    """Performs verbs over the ports.

    Thread-safe as far as its ports are. Subscribers run after the commit, in the caller's thread;
    their errors never undo what is committed.
    """

    def __init__(self, store: MetadataStore, services: Services, *, origin: str) -> None:
        self.store = store
        self.services = services
        self.origin = origin
        self.holdings = Holdings(store.write, services.clock)
        self._subscribers: list[Callable[[Event], None]] = []

    def subscribe(self, listener: Callable[[Event], None]) -> None:
        """Call the listener after every committed change."""
        self._subscribers.append(listener)

    def blobs_of(self, project: str) -> ProjectBlobs:
        """Return the blob store as a project sees it, by name; who calls has checked the rights.

        Raises:
            NotFound: ``project.not_found``.
        """
        with self.store.read() as tx:
            found = tx.select(Project, *where(name=project), limit=1)
        if not found:
            raise _no_project(project)
        key = ProjectId(found[0].id)
        return ProjectBlobs(self.services.blobs, self.holdings, key, self.store.read)

    def authenticate(self, secret: str, kinds: Iterable[TokenKind]) -> Caller:
        """Return the caller behind a token.

        Raises:
            NotAuthenticated: ``token.invalid``.
        """
        with self.store.read() as tx:
            return authenticate(tx, secret, self.services.clock.now(), kinds)

    def perform(self, call: Call) -> msgspec.Struct:
        """Perform one verb and return its answer.

        Raises:
            NotFound: ``verb.not_found``.
            NotAuthenticated: the caller is nobody.
            Denied: the caller may not; recorded in the ledger.
            EverloopError: whatever the verb refuses; nothing is changed then.
        """
        verb = find_verb(call.verb)
        if verb is None:
            raise NotFound(
                "verb.not_found",
                f"There is no verb {call.verb[:60]!r}.",
                hint="`everloop --help` and the OpenAPI document list them all.",
            )
        _check_call(call, verb)
        try:
            return self._ask(verb, call) if verb.is_query else self._change(verb, call)
        except NotAuthenticated:
            # Nobody is no actor, and must not be able to fill the ledger from outside.
            raise
        except Denied as refusal:
            self._record_refusal(verb, call, refusal)
            raise

    def _ask(self, verb: Verb, call: Call) -> msgspec.Struct:
        with self.store.read() as tx:
            project = self._admit(tx, verb, call)
            own = self._own(verb, project, {})
            services = (
                self.services if own is None else replace(self.services, blobs=own.within(tx))
            )
            answer: msgspec.Struct = verb.handler(
                call.ask, View(tx, call.caller, project, services)
            )
            return answer

    def _change(self, verb: Verb, call: Call) -> msgspec.Struct:
        request = call.request or self.services.ids.new()
        with self.store.read() as tx:
            project = self._admit(tx, verb, call)
            earlier = log.find_by_request(tx, request)
            if earlier is not None:
                return _replay(tx, verb, call, project, earlier)
        own = self._own(verb, project, {})
        services = self.services if own is None else replace(self.services, blobs=own)
        desk = Desk(call.caller, project, services, self.store.read)
        for attempt in range(PREPARE_ATTEMPTS):
            prepared = () if verb.prepare is None else (verb.prepare(call.ask, desk),)
            try:
                return self._commit(verb, call, request, prepared, own)
            except StaleVersion:
                # What was prepared rests on rows that somebody changed since: prepare it anew.
                if verb.prepare is None or attempt == PREPARE_ATTEMPTS - 1:
                    raise
        raise AssertionError  # unreachable: the last attempt returns or raises

    def _own(self, verb: Verb, project: ProjectId, used: dict[Digest, None]) -> ProjectBlobs | None:
        if verb.scope is Scope.INSTANCE:
            return None
        return ProjectBlobs(self.services.blobs, self.holdings, project, self.store.read, used)

    def _commit(
        self,
        verb: Verb,
        call: Call,
        request: str,
        prepared: tuple[object, ...],
        own: ProjectBlobs | None,
    ) -> msgspec.Struct:
        with self.store.write() as tx:
            # The first check may be stale by now: a role or a token can go while work is prepared.
            project = self._admit(tx, verb, call)
            earlier = log.find_by_request(tx, request)
            if earlier is not None:
                return _replay(tx, verb, call, project, earlier)
            inner = None if own is None else own.within(tx)
            work = Work(
                tx,
                call.caller,
                project,
                self.services if inner is None else replace(self.services, blobs=inner),
                now=self.services.clock.now(),
                request=request,
                reason=call.reason,
                own=inner,
            )
            answer: msgspec.Struct = verb.handler(call.ask, work, *prepared)
            if inner is not None:
                inner.write_used(tx)
            entry = self._append(verb, call, work, answer) if work.changes or work.notes else None
        if own is not None:
            own.written()
        if entry is not None:
            self._publish(entry)
        if verb.erases:
            self.store.scrub()
        if verb.compacts:
            self.store.compact()
        return answer

    def _admit(self, tx: Transaction, verb: Verb, call: Call) -> ProjectId:
        """Return the project's id after authorisation; unknown and invisible look the same."""
        if verb.open_to_all:
            return INSTANCE
        if verb.scope is Scope.INSTANCE:
            authorise(tx, call.caller, verb.permission, None)
            return INSTANCE
        found = tx.select(Project, *where(name=call.project), limit=1)
        if not found:
            with suppress(Denied):
                authorise(tx, call.caller, verb.permission, None)
                raise _no_project(str(call.project))
            raise access_denied(verb.permission)
        project = ProjectId(found[0].id)
        authorise(tx, call.caller, verb.permission, project)
        return project

    def _append(
        self, verb: Verb, call: Call, work: Work, answer: msgspec.Struct
    ) -> log.LedgerEntry:
        payload: dict[str, object] = {
            "changes": work.changes,
            "reason": work.reason,
            "verb": verb.name,
            **work.notes,
        }
        if verb.payload is Payload.FULL:
            payload |= {"input": call.ask, "output": answer}
        elif verb.payload is Payload.DIGEST:
            payload |= {"input_digest": _input_digest(call), "output": answer}
        return self._write_entry(work.tx, verb, call, work, payload)

    def _write_entry(
        self, tx: Transaction, verb: Verb, call: Call, work: Work, payload: dict[str, object]
    ) -> log.LedgerEntry:
        resource = log.named(work.refs, work.changes)[0]
        draft = log.EntryDraft(
            at=work.now,
            actor=call.caller.actor,
            on_behalf_of=call.caller.on_behalf_of,
            project=work.project,
            action=verb.name,
            resource=resource,
            outcome="ok",
            reason_code=None,
            refs=tuple(work.refs),
            request=work.request,
            policy=verb.permission,
            payload=payload,
            changes=tuple(work.changes),
        )
        return self._log(tx, draft)

    def _log(self, tx: Transaction, draft: log.EntryDraft) -> log.LedgerEntry:
        return log.append(
            tx,
            draft,
            salt=self.services.random_bytes(SALT_BYTES),
            signer=self.services.signers["ledger"],
            origin=self.origin,
        )

    def _record_refusal(self, verb: Verb, call: Call, refusal: Denied) -> None:
        """Write down what an actor tried and may not do."""
        with self.store.write() as tx:
            project = tx.select(Project, *where(name=call.project), limit=1)
            draft = log.EntryDraft(
                at=self.services.clock.now(),
                actor=call.caller.actor,
                on_behalf_of=call.caller.on_behalf_of,
                project=ProjectId(project[0].id) if project else INSTANCE,
                action=verb.name,
                resource=f"verb:{verb.name}",
                outcome="denied",
                reason_code=refusal.code,
                refs=(),
                request=self.services.ids.new(),
                policy=verb.permission,
                payload={"changes": [], "verb": verb.name},
            )
            self._log(tx, draft)

    def _publish(self, entry: log.LedgerEntry) -> None:
        event = Event(
            verb=entry.action,
            project=entry.project,
            resource=entry.resource,
            ledger_index=entry.index,
            at=entry.at,
            request=Id(entry.request),
        )
        for listener in self._subscribers:
            listener(event)


def _no_project(name: str) -> NotFound:
    return NotFound(
        "project.not_found",
        f"There is no project {name[:60]!r}.",
        hint="Make it with `everloop init`, or list them with `everloop project list`.",
    )


def _check_call(call: Call, verb: Verb) -> None:
    if not isinstance(call.ask, verb.ask):
        raise InvalidInput(
            "verb.wrong_input",
            f"{verb.name} takes {verb.ask.__name__}, not {type(call.ask).__name__}.",
            hint="Build the input type that the verb declares.",
        )
    if len(call.request or "") > MAX_REQUEST_CHARS or len(call.reason or "") > MAX_REASON_CHARS:
        raise InvalidInput(
            "call.too_long",
            "The request id or the reason is too long.",
            hint=f"At most {MAX_REQUEST_CHARS} and {MAX_REASON_CHARS} characters.",
        )


def _input_digest(call: Call) -> str:
    return sha256_digest(canonical_json(call.ask))


def _replay(
    tx: Transaction, verb: Verb, call: Call, project: ProjectId, entry: log.LedgerEntry
) -> msgspec.Struct:
    """Return the answer that the same call got before.

    Raises:
        Conflict: ``request.reused`` when the id belongs to another call.
    """
    payload = tx.find(log.LedgerPayload, entry.id)
    stored = msgspec.json.decode(payload.text) if payload and payload.text else {}
    same_input = stored.get("input_digest", _input_digest(call)) == _input_digest(call)
    if "input" in stored:
        same_input = canonical_json(stored["input"]) == canonical_json(call.ask)
    if (
        entry.action != verb.name
        or entry.actor != call.caller.actor
        or entry.project != project
        or "output" not in stored
        or not same_input
    ):
        raise Conflict(
            "request.reused",
            "This request id was used by another call.",
            hint="Use a fresh request id for a new call.",
        )
    try:
        answer: msgspec.Struct = msgspec.convert(stored["output"], verb.answer)
    except msgspec.ValidationError as error:  # written by an older version of the verb
        raise Conflict(
            "request.reused", f"The earlier answer cannot be read: {error}.", hint="Use a fresh id."
        ) from error
    return answer
