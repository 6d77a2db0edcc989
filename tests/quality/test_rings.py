"""Every module imports with everything above its ring blocked.

The static contracts do not see `importlib`, entry points or imports inside functions that run at
import time; this test does, because it imports in a fresh interpreter.
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "everloop"

# Alembic runs these files itself, with a context that exists only then.
RUN_BY_ALEMBIC = "everloop.storage.migrations."
# Extras: a module must import without them, for they are imported where they are used.
EXTRAS = ("lightgbm", "obstore", "psycopg", "scipy", "sklearn", "skops")
# Storage adapters for an extra are imported only where that back-end was asked for.
OF_AN_EXTRA = ("everloop.storage.postgres", "everloop.storage.s3")

PROBE = """
import importlib, sys

blocked = {blocked!r}

class Wall:
    def find_spec(self, name, path=None, target=None):
        for wall in blocked:
            if name == wall or name.startswith(wall + "."):
                raise ModuleNotFoundError("above the ring: " + name, name=name)
        return None

sys.meta_path.insert(0, Wall())
failures = []
for name in {modules!r}:
    try:
        importlib.import_module(name)
    except BaseException as error:
        failures.append(name + ": " + type(error).__name__ + ": " + str(error))
print("\\n".join(failures))
"""


def read_rings() -> list[list[str]]:
    """Return the rings from the top down, as the contract names them."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    (rings,) = [contract for contract in contracts if contract["id"] == "rings"]
    return [[name.strip(" ()") for name in layer.split("|")] for layer in rings["layers"]]


def list_modules(package: str) -> list[str]:
    """Return the dotted names of a package's modules."""
    names = []
    for path in sorted((PACKAGE / package).rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        name = ".".join(part for part in parts if part != "__init__")
        runs_itself = path.stem == "__main__" or name.startswith(RUN_BY_ALEMBIC)
        if not runs_itself and not name.startswith(OF_AN_EXTRA):
            names.append(name)
    return names


def ring_of(package: str) -> tuple[str, ...]:
    """Return what a package may not import: the rings above it and its siblings."""
    above: list[str] = []
    for ring in read_rings():
        if package in ring:
            return tuple(above + [name for name in ring if name != package])
        above += ring
    raise AssertionError(f"{package} is in no ring")


PACKAGES = [
    name for ring in read_rings() for name in ring if (PACKAGE / name / "__init__.py").exists()
]


@pytest.mark.parametrize("package", PACKAGES)
def test_a_ring_imports_without_those_above_it_and_without_extras(package: str) -> None:
    blocked = [f"everloop.{name}" for name in ring_of(package)]
    program = PROBE.format(blocked=(*blocked, *EXTRAS), modules=list_modules(package))

    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT
    )

    assert "" == result.stdout.strip() + result.stderr.strip()
