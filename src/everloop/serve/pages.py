"""Which pages of a browser may ask an open server that listens to this machine alone.

A browser runs pages of any site, and reaches the servers of its machine. Of what may change
something it says from which page it comes (RFC 6454, section 7); and a site whose name was made to
lead here (DNS rebinding) is given away by ``Host``, which names the site. It must never know what
a token is: with one, pages of any site may ask.
"""

from __future__ import annotations

from collections.abc import Collection

from everloop.core.errors import Denied
from everloop.serve.environment import is_this_machine
from everloop.serve.exchange import Request


class Pages:
    """The pages that may ask.

    Args:
        allowed: Hosts in small letters whose pages may ask, too, with a port or for any.
    """

    def __init__(self, allowed: Collection[str] = ()) -> None:
        self._allowed = frozenset(name.encode() for name in allowed)

    def require(self, request: Request) -> None:
        """Let pass programs, and the pages that may ask.

        Raises:
            Denied: ``request.foreign_host`` or ``request.foreign_origin``.
        """
        origin = request.headers.get(b"origin")
        # Of a POST a browser always says the page (Fetch standard, "append a request `Origin`
        # header"); of a GET to the page's own host it does not.
        if origin is None and request.method == "POST":
            return
        host = request.headers.get(b"host", b"")
        page = None if origin is None else origin.partition(b"://")[2]
        if (host or page is not None) and not self._is_own(host):
            raise Denied(
                "request.foreign_host",
                f"This server does not answer to the host {_shown(host)}.",
                hint=f"Ask it as localhost, or put the name into {_SETTINGS}",
            )
        if page is not None and page != host and not self._is_allowed(page):
            raise Denied(
                "request.foreign_origin",
                f"A page of {_shown(origin)} may not ask this server.",
                hint=f"Put the page's host into {_SETTINGS}",
            )

    def _is_own(self, host: bytes) -> bool:
        return is_this_machine(_name_of(host).decode("latin-1")) or self._is_allowed(host)

    def _is_allowed(self, host: bytes) -> bool:
        return host.lower() in self._allowed or _name_of(host) in self._allowed


_SETTINGS = "EVERLOOP_ALLOWED_HOSTS; or set EVERLOOP_TOKENS_FILE: with a token, any page may ask."


def _name_of(host: bytes) -> bytes:
    """Return a host in small letters, without its port."""
    name, _, port = host.rpartition(b":")
    return (name if port.isdigit() else host).lower()


def _shown(place: bytes | None) -> str:
    return repr((place or b"")[:80].decode("latin-1"))
