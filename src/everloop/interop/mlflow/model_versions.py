"""Model versions over MLflow's REST interface."""

from __future__ import annotations

from everloop.interop.mlflow.places import Place, address_invalid
from everloop.interop.mlflow.routing import Context, Route


def version_place(context: Context, parts: list[str]) -> tuple[Place, str]:
    """Return a version's folder, for ``registry/<name>/<number>/...``.

    Raises:
        InvalidInput: ``artifact.address_invalid``.
    """
    del context
    raise address_invalid("/".join(parts))


ROUTES: tuple[Route, ...] = ()
