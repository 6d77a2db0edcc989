"""Wraps functions of other libraries, and puts everything back as it was.

A wrapped function must behave as it did: whatever goes wrong on our side is logged once and
swallowed, and what the function itself raises passes unchanged.
"""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_log = logging.getLogger(__name__)
_MISSING = object()


class Patches:
    """What was put in the place of what; used under its owner's lock."""

    def __init__(self) -> None:
        self._done: list[tuple[Any, str, object, object]] = []

    def put(self, owner: Any, name: str, replacement: object) -> None:
        """Replace an attribute of a module or class."""
        self._done.append((owner, name, vars(owner).get(name, _MISSING), replacement))
        setattr(owner, name, replacement)

    def restore(self) -> None:
        """Put back what was there, the last change first.

        An attribute that somebody else replaced after us is left alone: our function then stays
        below theirs, and does nothing while autologging is off.
        """
        while self._done:
            owner, name, before, ours = self._done.pop()
            if vars(owner).get(name, _MISSING) is not ours:
                continue
            if before is _MISSING:
                delattr(owner, name)
            else:
                setattr(owner, name, before)


class Quiet:
    """Runs what must not break a training; each kind of failure is logged once."""

    def __init__(self) -> None:
        self._told: set[tuple[str, str]] = set()

    def attempt(self, what: Callable[..., object], *given: object) -> None:
        """Call a function and swallow what it raises."""
        try:
            what(*given)
        except Exception as error:  # noqa: BLE001 -- the promise: a training never breaks by us
            kind = (getattr(what, "__qualname__", str(what)), type(error).__name__)
            if kind not in self._told:
                self._told.add(kind)
                _log.warning("everloop: autologging left something out: %s: %s", kind[1], error)


class ImportWatch(MetaPathFinder):
    """Calls back when a module was imported, at once if it is there already."""

    def __init__(self) -> None:
        self._waiting: dict[str, Callable[[ModuleType], None]] = {}
        self._finding: set[str] = set()

    def when(self, name: str, call: Callable[[ModuleType], None]) -> None:
        """Call with the module now or as soon as somebody imports it."""
        module = sys.modules.get(name)
        if module is not None:
            call(module)
            return
        self._waiting[name] = call
        if self not in sys.meta_path:
            sys.meta_path.insert(0, self)

    def stop(self) -> None:
        """Wait for nothing any more."""
        self._waiting.clear()
        if self in sys.meta_path:
            sys.meta_path.remove(self)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find the module as the others would, with a loader that calls back."""
        del path, target
        if fullname not in self._waiting or fullname in self._finding:
            return None
        self._finding.add(fullname)
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self._finding.discard(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _CallingLoader(spec.loader, self._waiting.pop(fullname))
        return spec


class _CallingLoader(Loader):
    def __init__(self, inner: Loader, call: Callable[[ModuleType], None]) -> None:
        self._inner = inner
        self._call = call

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._inner.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self._inner
        module.__loader__ = self._inner
        self._inner.exec_module(module)
        self._call(module)
