"""Who looks at the pages: the session cookie, the login link, and proof that a form is ours."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response

from everloop.core.errors import Denied, NotAuthenticated
from everloop.kernel.authz import NOBODY, Caller, TokenKind
from everloop.kernel.perform import Call, Kernel
from everloop.kernel.tokens import CloseSession, NewToken, OpenSession

COOKIE: Final = "everloop_session"


@dataclass(frozen=True, slots=True)
class Session:
    """An open browser session."""

    secret: str
    caller: Caller

    @property
    def csrf(self) -> str:
        """What every form of this session carries; nobody can derive it without the cookie."""
        return hmac.new(self.secret.encode(), b"form of a page", hashlib.sha256).hexdigest()


def find_session(request: Request, kernel: Kernel) -> Session | None:
    """Return the session that the request's cookie opens, or None."""
    secret = request.cookies.get(COOKIE)
    if not secret:
        return None
    try:
        return Session(secret, kernel.authenticate(secret, (TokenKind.SESSION,)))
    except NotAuthenticated:
        return None


def get_session(request: Request, kernel: Kernel) -> Session:
    """Return the session that the request's cookie opens.

    Raises:
        NotAuthenticated: ``login.missing``.
    """
    found = find_session(request, kernel)
    if found is None:
        raise NotAuthenticated(
            "login.missing",
            "You are not logged in.",
            hint="Print a login link with `everloop token login` and open it in this browser.",
        )
    return found


def open_session(kernel: Kernel, secret: str) -> NewToken:
    """Trade the one-time secret of a login link for a session.

    Raises:
        NotAuthenticated: ``login.invalid``.
    """
    answer = kernel.perform(
        Call(verb="login.open", caller=NOBODY, ask=OpenSession(secret=secret[:200]))
    )
    assert isinstance(answer, NewToken)
    return answer


def close_session(kernel: Kernel, session: Session) -> None:
    """End a session for good, wherever its cookie is kept."""
    kernel.perform(Call(verb="login.close", caller=session.caller, ask=CloseSession()))


def set_cookie(response: Response, request: Request, opened: NewToken, lifetime_s: int) -> None:
    """Give the browser its session; scripts cannot read it and other sites cannot send it."""
    response.set_cookie(
        COOKIE,
        opened.secret,
        max_age=lifetime_s,
        path="/",
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )


def require_same_site(request: Request) -> None:
    """Refuse a form that another site sent.

    Raises:
        Denied: ``form.foreign``.
    """
    origin = request.headers.get("origin")
    foreign_origin = origin is not None and urlsplit(origin).netloc != request.headers.get("host")
    if foreign_origin or request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
        raise _foreign()


def require_own_form(session: Session, token: str | None) -> None:
    """Refuse a form that this session was not given.

    Raises:
        Denied: ``form.foreign``.
    """
    if not hmac.compare_digest((token or "").encode(), session.csrf.encode()):
        raise _foreign()


def _foreign() -> Denied:
    return Denied(
        "form.foreign",
        "This form does not come from this page and this session.",
        hint="Open the page again and send its form.",
    )
