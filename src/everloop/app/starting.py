"""Beginning a project: its folder, its configuration file, its first records."""

from __future__ import annotations

import logging
import re
from contextlib import suppress
from pathlib import Path

import msgspec

from everloop.app.client import Client, connect_home
from everloop.app.config import load_config
from everloop.app.home import CONFIG_NAME, FOLDER_NAME, Home
from everloop.core.errors import Conflict, InvalidInput, NotFound
from everloop.core.ids import check_name
from everloop.kernel.admin import ConfigurationView, Configure, CreateProject, ProjectView
from everloop.registry.masking import find_unknown_mask
from everloop.registry.model import ModelVersion
from everloop.registry.queries import ListModelVersions, ModelVersionList
from everloop.storage.files import create_durably

_LOG = logging.getLogger("everloop.configuration")
_TEMPLATE = """\
# Everloop's settings of this project. Every key is described in docs/reference/settings.md;
# `everloop configure` checks this file and puts it in force, `everloop up` does so at its start.
version: 1
project: {project}

# What every snapshot of a dataset must meet.
# datasets:
#   demand:
#     contract:
#       rows: {{min: 100}}

# How a model is judged, released, watched and retrained.
# models:
#   demand:
#     task: regression
#     target: count
#     gate: {{alpha: 0.05}}
#     release: {{strategy: shadow, shares: [0.1, 0.5]}}
#     monitor: {{window_hours: 168}}
#     loop: {{enabled: true, pipeline: "training:train", dataset: demand}}

# Where the control plane listens; loopback unless stated.
# server: {{host: 127.0.0.1, port: 7300}}
"""


class Started(msgspec.Struct, frozen=True, kw_only=True):
    """What `start_project` left.

    Attributes:
        written: Files that were not there before, or were added to.
    """

    project: str
    folder: str
    written: tuple[str, ...]


def start_project(folder: Path, name: str | None = None) -> Started:
    """Make a folder a project; what is there already stays as it is.

    Raises:
        InvalidInput: the name or the folder can't be used.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInput(
            "home.unusable",
            f"The folder {folder} can't be made: {error.strerror}.",
            hint="Choose another folder.",
        ) from error
    written = []
    file = folder / CONFIG_NAME
    if not file.exists():
        project = check_name(name or _name_from(folder), "Project")
        create_durably(file, _TEMPLATE.format(project=project).encode())
        file.chmod(0o644)
        written.append(CONFIG_NAME)
    config = load_config(file)
    if name is not None and name != config.project:
        raise InvalidInput(
            "project.other_name",
            f"{CONFIG_NAME} names this project {config.project!r}.",
            hint=f"Change the name there, or leave {name!r} out.",
        )
    if _ignore(folder):
        written.append(".gitignore")
    home = Home(folder / FOLDER_NAME)
    is_new = not home.path.exists()
    home.create()
    with connect_home(home, project=config.project) as client:
        put_in_force(client, home)
    if is_new:
        written.append(f"{FOLDER_NAME}/")
    return Started(project=config.project, folder=str(folder), written=tuple(written))


def put_in_force(client: Client, home: Home, *, reason: str | None = None) -> ConfigurationView:
    """Check everloop.yaml and perform `project.configure`; makes the project if it is not there.

    Raises:
        InvalidInput: the file is wrong, and the message names the line; or ``log.mask_unknown``.
    """
    config = load_config(home.project_folder / CONFIG_NAME)
    if client.url is None:
        with suppress(Conflict):
            client.perform("project.create", CreateProject(name=config.project), ProjectView)
    for model, section in config.models.items():
        if section.log.masked:
            _require_known_masks(client, model, section.log.masked)
    document = msgspec.json.decode(msgspec.json.encode(config), type=dict[str, object])
    return client.perform(
        "project.configure", Configure(document=document), ConfigurationView, reason=reason
    )


def _require_known_masks(client: Client, model: str, masked: tuple[str, ...]) -> None:
    """Refuse to mask what no version takes; of a model without versions nobody can tell yet."""
    versions: list[ModelVersion] = []
    after = None
    with suppress(NotFound):
        while True:
            ask = ListModelVersions(name=model, after=after, limit=1000, deleted="all")
            page = client.perform("model.versions", ask, ModelVersionList)
            versions += page.items
            after = page.next
            if after is None:
                break
    if not versions:
        _LOG.warning(
            "models.%s.log.masked is not checked yet: there is no version of %s. "
            "A release refuses names that are no inputs.",
            model,
            model,
        )
        return
    problem = find_unknown_mask(model, masked, versions)
    if problem is not None:
        raise problem


def _name_from(folder: Path) -> str:
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", folder.name).strip("-._")[:100]
    return name or "project"


def _ignore(folder: Path) -> bool:
    """Keep the home folder out of version control; return whether a line was added."""
    file = folder / ".gitignore"
    line = f"/{FOLDER_NAME}/"
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    if line in text.splitlines():
        return False
    start = "" if not text or text.endswith("\n") else "\n"
    with file.open("a", encoding="utf-8") as stream:
        stream.write(f"{start}{line}\n")
    return True
