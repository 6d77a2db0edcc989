"""Verbs: the only way to change or read state, each declared once with its permission.

A change::

    @verb("model.promote", permission="model:release")
    def promote(ask: Promote, work: Work) -> Promotion: ...

A question::

    @query("model.list", permission="model:read")
    def list_models(ask: ListModels, view: View) -> ModelList: ...

Every face (SDK, CLI, HTTP, pages) binds to the table that these fill. A verb without a permission
is a ``TypeError`` at import.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar, get_type_hints

import msgspec

_NAME = re.compile(r"[a-z][a-z_]*\.[a-z][a-z_]*")
_PERMISSION = re.compile(r"[a-z][a-z_]*:(?:read|write|release|approve|admin|predict)")
_RESERVED_PARAMETERS = 2


class Scope(StrEnum):
    """Where a verb acts: inside one project, or on the whole instance."""

    PROJECT = "project"
    INSTANCE = "instance"


class Payload(StrEnum):
    """What the ledger's side row keeps of the input.

    FULL keeps it, DIGEST only its digest (bulk data), and SECRET neither input nor output.
    """

    FULL = "full"
    DIGEST = "digest"
    SECRET = "secret"  # noqa: S105 -- names a mode


@dataclass(frozen=True, slots=True)
class Verb:
    """One declared verb.

    Attributes:
        name: ``noun.verb``, the same in code, CLI, HTTP and ledger.
        permission: ``noun:action``; the action decides which roles hold it.
        ask: Input type, a frozen msgspec Struct.
        answer: Output type, a msgspec Struct.
        handler: ``handler(ask, work)``, or ``handler(ask, work, prepared)``.
        prepare: Slow part that runs after authorisation and before the transaction.
        is_query: Whether it only reads.
        scope: Project or instance.
        payload: What the ledger keeps.
        open_to_all: Callable without a token (health and login only).
        erases: Whether what it overwrites must leave the store's files too.
        compacts: Whether the store gives free space back to the disk afterwards.
    """

    name: str
    permission: str
    ask: type[msgspec.Struct]
    answer: type[msgspec.Struct]
    handler: Callable[..., Any]
    prepare: Callable[..., Any] | None = None
    is_query: bool = False
    scope: Scope = Scope.PROJECT
    payload: Payload = Payload.FULL
    open_to_all: bool = False
    erases: bool = False
    compacts: bool = False

    @property
    def summary(self) -> str:
        """First line of the handler's docstring."""
        return (inspect.getdoc(self.handler) or "").partition("\n")[0]


_VERBS: dict[str, Verb] = {}
H = TypeVar("H", bound=Callable[..., Any])


def verb(
    name: str,
    *,
    permission: str,
    prepare: Callable[..., Any] | None = None,
    scope: Scope = Scope.PROJECT,
    payload: Payload = Payload.FULL,
    open_to_all: bool = False,
    erases: bool = False,
    compacts: bool = False,
) -> Callable[[H], H]:
    """Declare a verb that changes state.

    Raises:
        TypeError: at import, when name, permission or signature is not as it must be.
    """

    def declare(handler: H) -> H:
        ask, answer = _signature(name, permission, handler)
        _add(
            Verb(
                name,
                permission,
                ask,
                answer,
                handler,
                prepare=prepare,
                scope=scope,
                payload=payload,
                open_to_all=open_to_all,
                erases=erases,
                compacts=compacts,
            )
        )
        return handler

    return declare


def query(
    name: str, *, permission: str, scope: Scope = Scope.PROJECT, open_to_all: bool = False
) -> Callable[[H], H]:
    """Declare a verb that only reads.

    Raises:
        TypeError: at import, as for ``verb``.
    """

    def declare(handler: H) -> H:
        ask, answer = _signature(name, permission, handler)
        _add(
            Verb(
                name,
                permission,
                ask,
                answer,
                handler,
                is_query=True,
                scope=scope,
                open_to_all=open_to_all,
            )
        )
        return handler

    return declare


def declared_verbs() -> Mapping[str, Verb]:
    """Return all verbs declared so far, by name."""
    return dict(sorted(_VERBS.items()))


def find_verb(name: str) -> Verb | None:
    """Return the verb of that name, or None."""
    return _VERBS.get(name)


def _add(declared: Verb) -> None:
    if declared.name in _VERBS:
        message = f"verb {declared.name} is declared twice"
        raise TypeError(message)
    _VERBS[declared.name] = declared


def _signature(
    name: str, permission: str, handler: Callable[..., Any]
) -> tuple[type[msgspec.Struct], type[msgspec.Struct]]:
    problem = _problem(name, permission, handler)
    if problem:
        message = f"verb {name}: {problem}"
        raise TypeError(message)
    hints = get_type_hints(handler)
    first = next(iter(inspect.signature(handler).parameters))
    return hints[first], hints["return"]


def _problem(name: str, permission: str, handler: Callable[..., Any]) -> str | None:
    if _NAME.fullmatch(name) is None:
        return "the name must be 'noun.verb' in lower case"
    if _PERMISSION.fullmatch(permission) is None:
        return f"permission {permission!r} must be 'noun:read|write|release|approve|admin|predict'"
    if len(inspect.signature(handler).parameters) < _RESERVED_PARAMETERS:
        return "the handler takes (ask, work)"
    hints = get_type_hints(handler)
    first = next(iter(inspect.signature(handler).parameters))
    for role, hint in (("ask", hints.get(first)), ("answer", hints.get("return"))):
        if not (isinstance(hint, type) and issubclass(hint, msgspec.Struct)):
            return f"its {role} type must be a msgspec Struct, not {hint!r}"
    if not inspect.getdoc(handler):
        return "it needs a docstring"
    return None
