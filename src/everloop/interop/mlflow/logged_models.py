"""Logged models over MLflow's REST interface."""

from __future__ import annotations

from everloop.interop.mlflow.places import Place, address_invalid
from everloop.interop.mlflow.routing import Context, Route


def model_place(context: Context, parts: list[str]) -> tuple[Place, str]:
    """Return a logged model's folder, for ``<experiment>/models/<model_id>/artifacts/...``.

    Raises:
        InvalidInput: ``artifact.address_invalid``.
    """
    del context
    raise address_invalid("/".join(parts))


ROUTES: tuple[Route, ...] = ()
