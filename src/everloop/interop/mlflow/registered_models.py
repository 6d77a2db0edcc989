"""Registered models over MLflow's REST interface."""

from __future__ import annotations

from everloop.interop.mlflow.routing import Route

ROUTES: tuple[Route, ...] = ()
