"""Finding a function of the project by ``module:function``."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

from everloop.core.errors import EverloopError, InvalidInput, NotFound


def load_pipeline(target: str, folder: Path | None) -> object:
    """Import a function of the project; its folder comes first on the path.

    Raises:
        InvalidInput: ``pipeline.target_invalid``, or ``pipeline.import_failed`` when its module
            can't be imported.
        NotFound: ``pipeline.not_found`` when the module has no such function.
    """
    module_name, found, name = target.partition(":")
    parts = module_name.split(".")
    if not found or not name.isidentifier() or not all(part.isidentifier() for part in parts):
        raise InvalidInput(
            "pipeline.target_invalid",
            f"{target[:80]!r} names no function.",
            hint="Write module:function, such as training:train.",
        )
    if folder is not None and str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    try:
        module = import_module(module_name)
    except EverloopError:
        raise
    except Exception as error:
        raise InvalidInput(
            "pipeline.import_failed",
            f"{module_name} can't be imported: {type(error).__name__}: {error}"[:500],
            hint=f"Correct it; `python -c 'import {module_name}'` in the folder shows the trace.",
        ) from error
    function = getattr(module, name, None)
    if not callable(function):
        raise NotFound(
            "pipeline.not_found",
            f"{module_name} has no function {name!r}.",
            hint="Check the name.",
        )
    return function
