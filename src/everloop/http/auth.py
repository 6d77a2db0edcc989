"""Who calls: a Bearer token, or the session cookie of the pages."""

from __future__ import annotations

from starlette.requests import Request

from everloop.core.errors import NotAuthenticated
from everloop.kernel.authz import Caller, TokenKind
from everloop.kernel.perform import Kernel

COOKIE = "everloop_session"


def caller_of(request: Request, kernel: Kernel) -> Caller:
    """Return the authenticated caller.

    Raises:
        NotAuthenticated: ``token.missing`` or ``token.invalid``.
    """
    scheme, _, secret = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and secret:
        return kernel.authenticate(secret.strip(), (TokenKind.API,))
    session = request.cookies.get(COOKIE)
    if session:
        return kernel.authenticate(session, (TokenKind.SESSION,))
    raise NotAuthenticated(
        "token.missing",
        "This needs a token.",
        hint="Send 'Authorization: Bearer <token>'; make one with `everloop token create`.",
    )
