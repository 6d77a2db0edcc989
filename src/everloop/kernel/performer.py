"""A bound way to perform verbs: one caller, one project, near or far.

Client-side code (spool shipper, pipeline engine, loop controller, CLI, pages) asks for a
Performer and does not know whether the kernel is in this process or behind HTTP.
"""

from __future__ import annotations

from typing import Protocol, TypeVar

import msgspec

from everloop.core.ports import BlobStore
from everloop.kernel.authz import Caller
from everloop.kernel.perform import Call, Kernel

A = TypeVar("A", bound=msgspec.Struct)


class Performer(Protocol):
    """Performs verbs for one caller in one project.

    Contract: thread-safe; raises the same typed errors near and far; a repeated ``request`` id
    returns the first answer.
    """

    @property
    def project(self) -> str:
        """Name of the project."""
        ...

    @property
    def blobs(self) -> BlobStore:
        """Bytes under their digest, as this caller may read and put them."""
        ...

    def perform(
        self,
        verb: str,
        ask: msgspec.Struct,
        answer: type[A],
        *,
        request: str | None = None,
        reason: str | None = None,
    ) -> A:
        """Perform a verb and return its answer, checked to be of the type expected."""
        ...


class LocalPerformer:
    """Performs verbs on a kernel in this process."""

    def __init__(self, kernel: Kernel, caller: Caller, project: str) -> None:
        self._kernel = kernel
        self._caller = caller
        self._project = project
        self._blobs: BlobStore | None = None

    @property
    def project(self) -> str:
        """Name of the project."""
        return self._project

    @property
    def blobs(self) -> BlobStore:
        """The kernel's blob store as the project sees it.

        Raises:
            NotFound: ``project.not_found``.
        """
        if self._blobs is None:
            self._blobs = self._kernel.blobs_of(self._project)
        return self._blobs

    def perform(
        self,
        verb: str,
        ask: msgspec.Struct,
        answer: type[A],
        *,
        request: str | None = None,
        reason: str | None = None,
    ) -> A:
        """Perform a verb and return its answer.

        Raises:
            EverloopError: what the verb raises.
            TypeError: the verb answers with another type.
        """
        result = self._kernel.perform(
            Call(
                verb=verb,
                caller=self._caller,
                ask=ask,
                project=self._project,
                request=request,
                reason=reason,
            )
        )
        if not isinstance(result, answer):
            message = f"{verb} answers {type(result).__name__}, not {answer.__name__}"
            raise TypeError(message)
        return result
