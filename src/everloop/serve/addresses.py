"""All addresses of the server: each protocol module adds its own."""

from __future__ import annotations

from everloop.serve import feedback
from everloop.serve.dispatch import Route
from everloop.serve.environment import Found
from everloop.serve.explain import Explainer
from everloop.serve.protocols import (
    invocations,
    oip,
    openapi,
    platforms,
    records,
    repository,
    whatif,
)
from everloop.serve.service import Service


def all_routes(service: Service, found: Found) -> list[Route]:
    """Return every address that this process answers."""
    explainer = Explainer()
    return [
        *records.routes(service, explainer),
        *feedback.routes(service),
        *oip.routes(service, explainer),
        *openapi.routes(service),
        *whatif.routes(service, explainer),
        *repository.routes(service),
        *invocations.routes(service),
        # Last: what the platform names for itself goes before what we would have there.
        *platforms.routes(service, found, explainer),
    ]
