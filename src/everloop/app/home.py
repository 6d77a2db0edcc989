"""The home folder of an embedded instance: where its database, blobs, keys and logs lie.

Everything in it is readable by its owner alone: whoever can read the keys is the owner.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from everloop.core.errors import InvalidInput, NotFound

FOLDER_NAME = ".everloop"
CONFIG_NAME = "everloop.yaml"
HOME_VARIABLE = "EVERLOOP_HOME"
PRIVATE_FOLDER = 0o700


@dataclass(frozen=True, slots=True)
class Home:
    """Paths of one instance."""

    path: Path

    @property
    def database(self) -> Path:
        """The SQLite file."""
        return self.path / "everloop.db"

    @property
    def blobs(self) -> Path:
        """Folder of bytes under their digest."""
        return self.path / "blobs"

    @property
    def keys(self) -> Path:
        """Folder of private keys."""
        return self.path / "keys"

    @property
    def spool(self) -> Path:
        """Folder of tracking data not shipped yet."""
        return self.path / "spool"

    @property
    def anchor(self) -> Path:
        """File to which every checkpoint is appended, outside the database."""
        return self.path / "checkpoints.log"

    @property
    def server_file(self) -> Path:
        """File in which the running control plane leaves its address and process id."""
        return self.path / "server.json"

    @property
    def serving(self) -> Path:
        """Folder shared with the serving process."""
        return self.path / "serve"

    def serve(self, deployment: str) -> Path:
        """Folder of one deployment, shared with the serving process."""
        return self.serving / deployment

    @property
    def project_folder(self) -> Path:
        """The folder that the user works in."""
        return self.path.parent

    def create(self) -> Home:
        """Make the folder if it is not there, readable by its owner alone.

        Raises:
            InvalidInput: ``home.unusable``.
        """
        try:
            for folder in (self.path, self.blobs, self.keys, self.spool, self.path / "serve"):
                folder.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
            if self.path.stat().st_mode & 0o077:
                self.path.chmod(PRIVATE_FOLDER)
        except OSError as error:
            raise InvalidInput(
                "home.unusable",
                f"The home folder {self.path} can't be made: {error.strerror}.",
                hint="Choose another folder, or set EVERLOOP_HOME.",
            ) from error
        return self

    def running_server(self) -> dict[str, object] | None:
        """Return what the control plane left in its server file if that process lives."""
        try:
            found = json.loads(self.server_file.read_text())
            os.kill(int(found["pid"]), 0)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return dict(found)


def find_home(start: Path | None = None) -> Home:
    """Return the home of the project that a folder belongs to.

    ``EVERLOOP_HOME`` wins; else the nearest folder upwards that holds ``.everloop``.

    Raises:
        NotFound: ``home.not_found``.
    """
    named = os.environ.get(HOME_VARIABLE)
    if named:
        return Home(Path(named).absolute())
    here = (start or Path.cwd()).absolute()
    for folder in (here, *here.parents):
        if (folder / FOLDER_NAME).is_dir():
            return Home(folder / FOLDER_NAME)
    raise NotFound(
        "home.not_found",
        f"Neither {here} nor a folder above it is an Everloop project.",
        hint="Make one here with `everloop init`.",
    )
