"""All addresses of the server: each protocol module adds its own."""

from __future__ import annotations

from everloop.serve import feedback
from everloop.serve.dispatch import Route
from everloop.serve.protocols import records
from everloop.serve.service import Service


def all_routes(service: Service) -> list[Route]:
    """Return every address that this process answers."""
    return [*records.routes(service), *feedback.routes(service)]
