"""What every command shares: where the project is, and one connection to it, opened when needed."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec

if TYPE_CHECKING:
    from everloop.app.client import Client
    from everloop.app.home import Home

A = TypeVar("A", bound=msgspec.Struct)


@dataclass
class Session:
    """The global options, and the connection made of them.

    Attributes:
        folder: A folder in the project; the one at hand when None.
        project: The project's name, when it is not the one in everloop.yaml.
        url: Address of a server, instead of a folder.
    """

    folder: Path | None = None
    project: str | None = None
    url: str | None = None
    _client: Client | None = field(default=None, repr=False)

    @property
    def client(self) -> Client:
        """The connection.

        Raises:
            EverloopError: what `connect` refuses.
        """
        if self._client is None:
            from everloop.app.client import check_address, connect

            place = check_address(self.url) if self.url else self.folder
            self._client = connect(place, project=self.project)
        return self._client

    def home(self) -> Home:
        """Return the home folder.

        Raises:
            NotFound: ``home.not_found``.
        """
        from everloop.app.home import find_home

        return find_home(self.folder)

    def perform(
        self, verb: str, ask: msgspec.Struct, answer: type[A], *, reason: str | None = None
    ) -> A:
        """Perform a verb and return its answer."""
        return self.client.perform(verb, ask, answer, reason=reason)

    def close(self) -> None:
        """Close the connection if there is one."""
        if self._client is not None:
            self._client.close()
            self._client = None
