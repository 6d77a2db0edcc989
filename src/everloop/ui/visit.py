"""One request for a page: who asks, in which project, what the kernel answers, how it is shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Final, TypeVar
from urllib.parse import parse_qsl

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from everloop.core import errors
from everloop.core.errors import EverloopError, InvalidInput, LimitExceeded, NotFound
from everloop.core.ports import BlobStore
from everloop.kernel.admin import ActorList
from everloop.kernel.perform import Call, Kernel
from everloop.kernel.tokens import SessionView
from everloop.kernel.verbs import Scope, find_verb
from everloop.ui import render
from everloop.ui.session import Session, get_session, require_own_form, require_same_site

A = TypeVar("A", bound=msgspec.Struct)
Value = object
Handler = Callable[["Visit"], Response]

MAX_FORM_BYTES: Final = 64 * 1024
MAX_FIELDS: Final = 20
MAX_TICKED: Final = 200
MAX_REASON_CHARS: Final = 500
_STATUS: Final[tuple[tuple[type[EverloopError], int], ...]] = (
    (errors.NotAuthenticated, 401),
    (errors.Denied, 403),
    (errors.NotFound, 404),
    (errors.Conflict, 409),
    (errors.GateFailed, 422),
    (errors.UnsafeArtifact, 422),
    (errors.InvalidInput, 400),
    (errors.LimitExceeded, 413),
    (errors.Unavailable, 503),
    (errors.MissingExtra, 501),
)


@dataclass
class Visit:
    """A request with its session; everything it sees comes through the kernel.

    Attributes:
        ticked: Runs that were ticked in the form.
    """

    request: Request
    kernel: Kernel
    session: Session
    form: dict[str, str] = field(default_factory=dict)
    ticked: tuple[str, ...] = ()

    @property
    def project(self) -> str:
        """Name of the project in the address; empty outside a project."""
        return str(self.request.path_params.get("project", ""))

    @property
    def blobs(self) -> BlobStore:
        """The bytes that the project in the address holds."""
        return self.kernel.blobs_of(self.project)

    def path(self, name: str) -> str:
        """Return a part of the address."""
        return str(self.request.path_params[name])

    def prose(self, name: str) -> str:
        """Return a text of several lines from the form, with the line ends of our files."""
        return self.form.get(name, "").replace("\r\n", "\n").strip()

    def tag(self) -> dict[str, str]:
        """Return the tag that the form sets."""
        return {self.form.get("key", "").strip(): self.form.get("value", "")}

    def param(self, name: str) -> str | None:
        """Return a parameter of the address, None when it is missing or empty."""
        return self.request.query_params.get(name) or None

    def params(self, name: str) -> list[str]:
        """Return what a parameter of the address says each time that it stands there."""
        return [value for value in self.request.query_params.getlist(name) if value]

    def query(self, verb: str, answer: type[A], **fields: Value) -> A | None:
        """Ask a question; None when no package has declared it.

        Raises:
            EverloopError: what the verb refuses.
        """
        if find_verb(verb) is None:
            return None
        result = self._perform(verb, fields)
        if isinstance(result, answer):
            return result
        return msgspec.convert(result, answer, from_attributes=True)

    def get(self, verb: str, answer: type[A], **fields: Value) -> A:
        """Ask a question that must be there.

        Raises:
            NotFound: ``page.unavailable``, or what the verb refuses.
        """
        found = self.query(verb, answer, **fields)
        if found is None:
            raise _unavailable(verb)
        return found

    def find(self, verb: str, answer: type[A], **fields: Value) -> A | None:
        """Ask for something that may not be there; None then."""
        try:
            return self.query(verb, answer, **fields)
        except NotFound:
            return None

    def change(self, verb: str, **fields: Value) -> None:
        """Perform a change for the form at hand, once however often it is sent.

        Raises:
            InvalidInput: ``form.incomplete`` without confirmation or reason.
            EverloopError: what the verb refuses.
        """
        reason = self.form.get("reason", "").strip()
        if self.form.get("confirm") != "yes" or not reason or len(reason) > MAX_REASON_CHARS:
            raise InvalidInput(
                "form.incomplete",
                "Nothing was changed: a change needs your reason and your confirmation.",
                hint=f"Go back, say why in at most {MAX_REASON_CHARS} characters, tick the box.",
            )
        self._perform(verb, fields, request=self.form.get("request") or None, reason=reason)

    def edit(self, verb: str, **fields: Value) -> None:
        """Perform a small change that can be undone by the next one: no reason is asked for.

        Raises:
            NotFound: ``page.unavailable`` when no package has declared the verb.
            EverloopError: what the verb refuses.
        """
        if find_verb(verb) is None:
            raise _unavailable(verb)
        self._perform(
            verb,
            fields,
            request=self.form.get("request") or None,
            reason=self.form.get("reason", "").strip()[:MAX_REASON_CHARS] or None,
        )

    @cached_property
    def me(self) -> SessionView:
        """Who looks at the page."""
        return self.get("login.show", SessionView)

    @cached_property
    def people(self) -> dict[str, str]:
        """Names of actors by id, as far as the visitor may know them."""
        known = find_verb("actor.list")
        if not self.project or known is None or not self._has_scope(known.permission):
            return {}
        return {actor.id: actor.name for actor in self.get("actor.list", ActorList).items}

    def show(self, template: str, **context: object) -> Response:
        """Return a page inside the frame."""
        frame = {
            "project": self.project,
            "me": self.me,
            "path": self.request.url.path,
            "here": str(self.request.url).partition(self.request.url.netloc)[2],
            "csrf": self.session.csrf,
            "params": self.request.query_params,
            "new_request": self.kernel.services.ids.new,
            "has_verb": lambda name: find_verb(name) is not None,
        }
        text = render.page(template, people=self.people, **frame, **context)
        return render.html(text)

    def redirect(self, *segments: str, **params: Value) -> Response:
        """Send the browser on with a GET."""
        return RedirectResponse(
            render.address("p", self.project, *segments, **params), status_code=303
        )

    def _has_scope(self, permission: str) -> bool:
        return any(fnmatchcase(permission, pattern) for pattern in self.session.caller.scope)

    def _perform(
        self,
        name: str,
        fields: dict[str, Value],
        *,
        request: str | None = None,
        reason: str | None = None,
    ) -> msgspec.Struct:
        verb = find_verb(name)
        assert verb is not None, name
        given = {key: value for key, value in fields.items() if value is not None}
        try:
            ask = msgspec.convert(given, verb.ask, strict=False)
        except msgspec.ValidationError as error:
            raise InvalidInput(
                "input.invalid",
                f"The address asks for something that does not exist: {str(error)[:200]}.",
                hint="Go back and follow a link of the page.",
            ) from error
        return self.kernel.perform(
            Call(
                verb=name,
                caller=self.session.caller,
                ask=ask,
                project=self.project if verb.scope is Scope.PROJECT else None,
                request=request,
                reason=reason,
            )
        )


class Door:
    """Turns handlers into endpoints: a session first, and every error as a page with its hint."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    def shows(self, handler: Handler) -> Callable[[Request], Response]:
        """Return the endpoint of a page."""

        def endpoint(request: Request) -> Response:
            try:
                session = get_session(request, self._kernel)
                return handler(Visit(request, self._kernel, session))
            except EverloopError as error:
                return error_page(error)

        return endpoint

    def changes(self, handler: Handler) -> Callable[[Request], object]:
        """Return the endpoint of a form that only its own session may send."""

        def accept(request: Request, form: dict[str, str], ticked: tuple[str, ...]) -> Response:
            session = get_session(request, self._kernel)
            require_own_form(session, form.get("csrf"))
            return handler(Visit(request, self._kernel, session, form, ticked))

        async def endpoint(request: Request) -> Response:
            try:
                require_same_site(request)
                fields = await read_fields(request)
                ticked = tuple(value for name, value in fields if name == "run")
                return await run_in_threadpool(accept, request, dict(fields), ticked)
            except EverloopError as error:
                return error_page(error)

        return endpoint


async def read_form(request: Request) -> dict[str, str]:
    """Read a form of plain fields, each of which stands there once.

    Raises:
        LimitExceeded: ``form.too_large``.
        InvalidInput: ``form.invalid``.
    """
    return dict(await read_fields(request))


async def read_fields(request: Request) -> list[tuple[str, str]]:
    """Read the fields of a form in their order.

    Raises:
        LimitExceeded: ``form.too_large``.
        InvalidInput: ``form.invalid``.
    """
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_FORM_BYTES:
            raise LimitExceeded(
                "form.too_large", "The form is too large.", hint="Write a shorter reason."
            )
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise InvalidInput(
            "form.invalid", "This is no form of a page.", hint="Send the page's own form."
        )
    try:
        fields = parse_qsl(
            body.decode("ascii"), keep_blank_values=True, max_num_fields=MAX_FIELDS + MAX_TICKED
        )
    except ValueError as error:
        raise _unreadable() from error
    if sum(name != "run" for name, _ in fields) > MAX_FIELDS:
        raise _unreadable()
    return fields


def _unreadable() -> InvalidInput:
    return InvalidInput(
        "form.invalid", "The form cannot be read.", hint="Send the page's own form."
    )


def _unavailable(verb: str) -> NotFound:
    return NotFound(
        "page.unavailable",
        f"This installation does not know {verb}.",
        hint="Install the whole product; `everloop doctor` tells what is missing.",
    )


def error_page(error: EverloopError) -> Response:
    """Return an error as a page: what happened, and what to do next."""
    status = next((code for kind, code in _STATUS if isinstance(error, kind)), 500)
    template = "login_needed.html" if status == 401 else "error.html"
    return render.html(render.page(template, error=error, status=status), status=status)
