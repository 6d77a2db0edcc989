"""``everloop.yaml``: one file per project, checked strictly, with errors that name the line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from everloop.app.yaml_lines import Document, parse_yaml
from everloop.app.yaml_lines import Path as KeyPath
from everloop.core.errors import InvalidInput, NotFound
from everloop.core.ids import check_name
from everloop.data.contract import Contract
from everloop.gate.model import GateConfig
from everloop.govern.purging import TrashConfig
from everloop.loop.model import LoopConfig
from everloop.monitor.model import LogConfig, MonitorConfig
from everloop.registry.aliases import check_alias
from everloop.registry.protection import RegistryConfig
from everloop.release.config import ReleaseConfig

_AT = re.compile(r"^(?P<what>.*?)(?: - at `(?:key in )?(?P<path>\$[^`]*)`)?$", re.DOTALL)
_STEP = re.compile(r"\.([^.\[]+)|\[(\d+|\.\.\.)\]")
_FUNCTION = re.compile(r"[\w.]+:\w+")
_CORRECT = "Correct the line; docs/reference/settings.md lists every key."
_UNKNOWN = re.compile(r"unknown field `(?P<field>[^`]+)`")


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class ModelSection(_Section, frozen=True, kw_only=True):
    """One model of the project.

    Attributes:
        task: What it predicts.
        target: The column it predicts.
        gate: What a version must pass before it is released.
        release: How traffic moves to a new version.
        monitor: What is watched.
        log: What is kept of predictions.
        loop: When and how it is retrained.
    """

    task: Literal["regression", "classification"] = "regression"
    target: str | None = None
    gate: GateConfig = GateConfig()
    release: ReleaseConfig = ReleaseConfig()
    monitor: MonitorConfig = MonitorConfig()
    log: LogConfig = LogConfig()
    loop: LoopConfig = LoopConfig()


class DatasetSection(_Section, frozen=True, kw_only=True):
    """One dataset of the project: the contract that every snapshot must meet."""

    contract: Contract | None = None


class ServerSection(_Section, frozen=True, kw_only=True):
    """The control plane's address.

    Attributes:
        host: Interface to bind; loopback unless stated.
        port: 0 takes a free port.
        hosts: Further values of the Host header to answer to.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 7300
    hosts: tuple[str, ...] = ()


class ServeSection(_Section, frozen=True, kw_only=True):
    """Where the serving processes listen.

    Attributes:
        port: 0 takes a free one, and the same one again after a restart.
        workers: Processes that answer. They share the memory of the models.
    """

    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0
    workers: Annotated[int, msgspec.Meta(ge=1, le=256)] = 1


class Config(_Section, frozen=True, kw_only=True):
    """A whole ``everloop.yaml``.

    Attributes:
        version: Version of this file's format.
        project: Name of the project.
        datasets: By name.
        models: By name.
        server: The control plane's address.
        serve: The serving processes' addresses.
        trash: How long things are kept.
        registry: How models are kept.
    """

    version: Literal[1] = 1
    project: str
    datasets: dict[str, DatasetSection] = {}
    models: dict[str, ModelSection] = {}
    server: ServerSection = ServerSection()
    serve: ServeSection = ServeSection()
    trash: TrashConfig = TrashConfig()
    registry: RegistryConfig = RegistryConfig()


def load_config(path: Path) -> Config:
    """Read and check a configuration file.

    Raises:
        NotFound: ``config.not_found``.
        InvalidInput: ``yaml.invalid`` or ``config.invalid``, with the line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise NotFound(
            "config.not_found",
            f"There is no {path.name} in {path.parent}.",
            hint="Make one with `everloop init`.",
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(
            "config.invalid",
            f"{path.name} can't be read as UTF-8 text: {error}.",
            hint="Check the file's permissions and encoding.",
        ) from error
    return parse_config(text, path.name)


def parse_config(text: str, name: str = "everloop.yaml") -> Config:
    """Check a configuration text.

    Raises:
        InvalidInput: ``yaml.invalid`` or ``config.invalid``, with the line.
    """
    document = parse_yaml(text, name)
    try:
        config = msgspec.convert(document.value, Config)
    except msgspec.ValidationError as error:
        raise _explain(error, document, name) from error
    for section, names in (("models", config.models), ("datasets", config.datasets)):
        for entry in names:
            check_name(entry, f"{name}, line {document.line((section, entry))}: {section}")
    check_name(config.project, f"{name}, line {document.line(('project',))}: project")
    for path, problem in _contradictions(config):
        raise _refusal(document, name, path, problem, _CORRECT)
    return config


def _contradictions(config: Config) -> Iterator[tuple[KeyPath, str]]:
    """Yield where values that are right one by one make no sense together."""
    for key, model in config.models.items():
        at: KeyPath = ("models", key, "loop")
        if model.loop.enabled:
            if not _FUNCTION.fullmatch(model.loop.pipeline):
                yield (*at, "pipeline"), "a loop that is enabled needs one, as module:function"
            if not model.loop.dataset:
                yield (*at, "dataset"), "a loop that is enabled needs one"
    for key, dataset in config.datasets.items():
        if dataset.contract is not None:
            yield from _impossible(dataset.contract, ("datasets", key, "contract"))
    for number, alias in enumerate(config.registry.protected_aliases):
        try:
            check_alias(alias)
        except InvalidInput as refusal:
            yield ("registry", "protected_aliases", number), refusal.message


def _impossible(contract: Contract, at: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    least, most = contract.rows.minimum, contract.rows.maximum
    if least is not None and most is not None and least > most:
        yield (*at, "rows"), "min is greater than max"
    for name, column in contract.columns.items():
        low, high = column.minimum, column.maximum
        if isinstance(low, int | float) and isinstance(high, int | float) and low > high:
            yield (*at, "columns", name), "min is greater than max"


def json_schema() -> dict[str, object]:
    """Return the published JSON Schema of the configuration file."""
    schema = msgspec.json.schema(Config)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "everloop.yaml",
        **schema,
    }


def _explain(error: msgspec.ValidationError, document: Document, name: str) -> InvalidInput:
    match = _AT.match(str(error))
    what = match["what"] if match else str(error)
    path = _key_path((match["path"] if match else None) or "$", document.value)
    hint = _CORRECT
    unknown = _UNKNOWN.search(what)
    if unknown:
        field = unknown["field"]
        path = (*path, field)
        close = get_close_matches(field, _known_fields(path[:-1]), n=1)
        what = f"the key {field!r} is unknown"
        if close:
            hint = f"Did you mean {close[0]!r}? docs/reference/settings.md lists every key."
    return _refusal(document, name, path, f"{what[:1].lower()}{what[1:]}", hint)


def _refusal(document: Document, name: str, path: KeyPath, what: str, hint: str) -> InvalidInput:
    line = document.line(path)
    place = ".".join(str(part) for part in path) or "the file"
    return InvalidInput(
        "config.invalid",
        f"{name}, line {line}: {place}: {what}.",
        hint=hint,
        context={"line": line},
    )


def _key_path(text: str, value: object) -> KeyPath:
    """Turn msgspec's ``$.models[...].gate`` into the keys of the first value that it can be."""
    found: list[str | int] = []
    for name, index in _STEP.findall(text):
        if name:
            found.append(name)
        elif index.isdigit():
            found.append(int(index))
        else:  # msgspec does not say which key of a mapping: look for the offender one by one
            found.append("...")
    return _resolve_unnamed(tuple(found), value)


def _resolve_unnamed(path: KeyPath, value: object) -> KeyPath:
    if "..." not in path:
        return path
    at = path.index("...")
    section, rest = path[0], path[at + 1 :]
    shape = {"models": ModelSection, "datasets": DatasetSection}.get(str(section))
    entries = value.get(str(section)) if isinstance(value, dict) else None
    if shape is None or at != 1 or not isinstance(entries, dict):
        return path[:at]
    for key, entry in entries.items():
        try:
            msgspec.convert(entry, shape)
        except msgspec.ValidationError:
            return (section, str(key), *(step for step in rest if step != "..."))
    return path[:at]


def _known_fields(path: KeyPath) -> list[str]:
    shape: object = Config
    for step in path:
        fields = {f.name: f.type for f in msgspec.structs.fields(shape)}  # type: ignore[arg-type]
        found = fields.get(str(step)) if hasattr(shape, "__struct_fields__") else None
        if found is None:
            shape = {"models": ModelSection, "datasets": DatasetSection}.get(str(path[0]), Config)
            continue
        if not hasattr(found, "__struct_fields__"):
            shape = {"models": ModelSection, "datasets": DatasetSection}.get(str(step), found)
            continue
        shape = found
    return list(getattr(shape, "__struct_fields__", ()))
