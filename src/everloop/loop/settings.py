"""The sections of a model's configuration that the controller needs, read through a question."""

from __future__ import annotations

from msgspec import Struct, ValidationError, convert

from everloop.core.errors import InvalidInput
from everloop.kernel.admin import ConfigurationView, ShowConfiguration
from everloop.kernel.performer import Performer
from everloop.loop.model import LoopConfig
from everloop.monitor.model import LogConfig


class ModelSettings(Struct, frozen=True, kw_only=True):
    """What the loop needs of ``models.<name>``; other sections are read by others."""

    task: str = "regression"
    target: str = ""
    loop: LoopConfig = LoopConfig()
    log: LogConfig = LogConfig()


def read_settings(performer: Performer, model: str) -> ModelSettings:
    """Return a model's settings in force.

    Raises:
        InvalidInput: ``settings.invalid``.
    """
    document = performer.perform(
        "project.settings", ShowConfiguration(), ConfigurationView
    ).document
    models = document.get("models")
    section = models.get(model) if isinstance(models, dict) else None
    # What a configuration leaves open, such as the target, is stored as null.
    told = {key: value for key, value in (section or {}).items() if value is not None}
    try:
        return convert(told, ModelSettings)
    except ValidationError as error:
        raise InvalidInput(
            "settings.invalid",
            f"models.{model} in the project's configuration: {error}.",
            hint="Correct everloop.yaml and run `everloop configure`.",
        ) from error
