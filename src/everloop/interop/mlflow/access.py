"""Who calls: a Bearer token, or Basic with the token as its password, as MLflow's clients send."""

from __future__ import annotations

import base64
import binascii

from starlette.requests import Request

from everloop.core.errors import NotAuthenticated
from everloop.kernel.authz import TokenKind
from everloop.kernel.perform import Kernel
from everloop.kernel.performer import LocalPerformer, Performer


class Access:
    """Makes the performer of a request: the caller behind its token, in the project it names.

    Args:
        kernel: Performs the verbs.
        project: Name of the project that addresses without one mean.
    """

    def __init__(self, kernel: Kernel, project: str) -> None:
        self._kernel = kernel
        self._project = project

    def __call__(self, request: Request) -> Performer:
        """Return the performer.

        Raises:
            NotAuthenticated: ``token.missing`` or ``token.invalid``.
        """
        caller = self._kernel.authenticate(_secret(request), (TokenKind.API,))
        project = request.scope.get("everloop.project") or self._project
        return LocalPerformer(self._kernel, caller, project)


def _secret(request: Request) -> str:
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and value:
        return value.strip()
    if scheme.lower() == "basic" and value:
        try:
            password = base64.b64decode(value, validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            password = ""
        if password:
            return password
    raise NotAuthenticated(
        "token.missing",
        "This needs a token.",
        hint="Set MLFLOW_TRACKING_TOKEN to one that `everloop token create` made.",
    )
