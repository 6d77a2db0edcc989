"""A real sealed bundle to be exported, and a placement for it."""

from __future__ import annotations

import sys
import zipfile
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import yaml

from everloop.export.lock import locked
from everloop.export.model import Placement, Subject
from everloop.kernel.signing import Ed25519Signer
from everloop.serve.bundle import write_bundle
from tests.unit.serve.served import MODEL, make_bundle

PLACEMENT = Placement(image="registry.example.com/team/credit:1.4.0", namespace="models")
SIGNER = Ed25519Signer("evaluator", b"\x07" * 32)


def subject(folder: Path, **changes: Any) -> Subject:
    """Seal a bundle in a folder and return it as it is exported."""
    bundle = make_bundle(3, **changes)
    place = folder / "sealed"
    write_bundle(place, bundle, {"model.txt": MODEL}, SIGNER)
    files = {
        path.relative_to(place).as_posix(): path.read_bytes()
        for path in place.rglob("*")
        if path.is_file()
    }
    return Subject(bundle=bundle, files=files, public_key=SIGNER.public_key.hex())


def parsed(files: dict[str, str]) -> dict[str, Any]:
    """Return YAML files as values; each holds one document."""
    return {name: yaml.safe_load(text) for name, text in files.items()}


def install(
    folder: Path, place: Path, formats: tuple[str, ...] = ("lightgbm",), also: tuple[str, ...] = ()
) -> Path:
    """Install an exported folder as its lock says, without a network: links for what is here.

    Nothing but the wheel and the distributions of the lock can be imported from the place.
    """
    place.mkdir(parents=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(place)
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    for one in locked(python, formats, also):
        found = distribution(one.name)
        assert one.version == found.version, f"{one.name}: the lock is not what is installed"
        for top in {file.parts[0] for file in found.files or () if file.parts[0] != ".."}:
            source = Path(str(found.locate_file(top)))
            if top != "__pycache__" and not (place / top).exists():
                (place / top).symlink_to(source)
    return place


def serve_command(*arguments: str) -> list[str]:
    """Return the command of the image, run by this Python without its own packages."""
    return [sys.executable, "-S", "-P", "-m", "everloop.serve.main", *arguments]
