"""One coherent system for the whole life of a machine-learning model.

Importing this costs next to nothing: each name is loaded when it is first used.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from everloop.app.client import Client, connect
    from everloop.app.sdk import (
        add_feedback,
        commit,
        load_model,
        log_model,
        read,
        register,
        run_pipeline,
    )
    from everloop.app.tracking import (
        autolog,
        log_artifact,
        log_metric,
        log_metrics,
        log_params,
        set_tags,
        start_run,
    )
    from everloop.app.version import __version__
    from everloop.core.errors import EverloopError
    from everloop.pipeline.codecs import DatasetRef, FileRef, ModelFiles
    from everloop.pipeline.context import current_run
    from everloop.pipeline.steps import pipeline, step
    from everloop.serve.client import PredictClient

__all__ = [
    "Client",
    "DatasetRef",
    "EverloopError",
    "FileRef",
    "ModelFiles",
    "PredictClient",
    "__version__",
    "add_feedback",
    "autolog",
    "commit",
    "connect",
    "current_run",
    "load_model",
    "log_artifact",
    "log_metric",
    "log_metrics",
    "log_model",
    "log_params",
    "pipeline",
    "read",
    "register",
    "run_pipeline",
    "set_tags",
    "start_run",
    "step",
]

_HOME = {
    "Client": "app.client",
    "connect": "app.client",
    "add_feedback": "app.sdk",
    "autolog": "app.tracking",
    "commit": "app.sdk",
    "read": "app.sdk",
    "register": "app.sdk",
    "run_pipeline": "app.sdk",
    "start_run": "app.tracking",
    "load_model": "app.sdk",
    "log_artifact": "app.tracking",
    "log_metric": "app.tracking",
    "log_metrics": "app.tracking",
    "log_model": "app.sdk",
    "log_params": "app.tracking",
    "set_tags": "app.tracking",
    "__version__": "app.version",
    "EverloopError": "core.errors",
    "DatasetRef": "pipeline.codecs",
    "FileRef": "pipeline.codecs",
    "ModelFiles": "pipeline.codecs",
    "current_run": "pipeline.context",
    "pipeline": "pipeline.steps",
    "step": "pipeline.steps",
    "PredictClient": "serve.client",
}


class _DecoratorPackage(ModuleType):
    """The sub-package ``pipeline``, which is the decorator of that name when it is called."""

    def __call__(self, *args: object, **options: object) -> object:
        from everloop.pipeline import steps

        return steps.pipeline(*args, **options)  # type: ignore[call-overload]


class _FrontDoor(ModuleType):
    """This module; importing the sub-package ``pipeline`` must not hide the decorator."""

    def __setattr__(self, name: str, value: object) -> None:
        if name == "pipeline" and isinstance(value, ModuleType):
            value.__class__ = _DecoratorPackage
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _FrontDoor


def __getattr__(name: str) -> object:
    home = _HOME.get(name)
    if home is None:
        message = f"module 'everloop' has no attribute {name!r}"
        raise AttributeError(message)
    if name == "pipeline":
        return import_module("everloop.pipeline")
    value: object = getattr(import_module(f"everloop.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
