"""A real sealed bundle to be exported, and a placement for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

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
