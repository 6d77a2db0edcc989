"""The import contracts bite: they fail where they should, and nobody loosens them in passing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "everloop"
SETTINGS = ROOT / "pyproject.toml"

# Each entry is an exception to a contract, told in the decision records. The list may shrink.
IGNORED_IMPORTS = {
    "everloop.serve.fetch -> obstore",
    "everloop.serve.** -> everloop.kernel.signing",
    "everloop.serve.runtime -> everloop.kernel.safe_load",
    "everloop.registry.loaders -> everloop.kernel.safe_load",
}


def read_contracts() -> list[dict[str, Any]]:
    settings = tomllib.loads(SETTINGS.read_text(encoding="utf-8"))
    return list(settings["tool"]["importlinter"]["contracts"])


def lint(copy: Path) -> subprocess.CompletedProcess[str]:
    """Run the contracts over a copy of the package."""
    return subprocess.run(
        [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"],
        cwd=copy,
        env=os.environ | {"PYTHONPATH": str(copy / "src")},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Copy the package and the contracts to a place where things may be planted."""
    hidden = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PACKAGE, tmp_path / "src" / "everloop", ignore=hidden)
    shutil.copy(SETTINGS, tmp_path / "pyproject.toml")
    return tmp_path


def plant(copy: Path, module: str, text: str) -> None:
    path = copy / "src" / Path(*module.split(".")).with_suffix(".py")
    path.parent.mkdir(parents=True, exist_ok=True)
    if not (path.parent / "__init__.py").exists():
        (path.parent / "__init__.py").write_text('"""Planted."""\n')
    path.write_text(text)


def test_exceptions_to_the_contracts_do_not_grow() -> None:
    found = {entry for contract in read_contracts() for entry in contract.get("ignore_imports", [])}

    assert set() == found - IGNORED_IMPORTS


def test_the_ring_contract_stays_exhaustive() -> None:
    (rings,) = [contract for contract in read_contracts() if contract["id"] == "rings"]

    assert rings["exhaustive"] is True
    assert ["__main__"] == rings["exhaustive_ignores"]


def test_the_package_keeps_its_contracts(copy: Path) -> None:
    result = lint(copy)

    assert 0 == result.returncode, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("module", "text", "contract"),
    [
        ("everloop.core.planted", "import everloop.kernel.planted_below\n", "Rings"),
        ("everloop.data.planted", "import everloop.track.planted_below\n", "Rings"),
        ("everloop.loop.planted", "import everloop.storage.planted_below\n", "Only the compos"),
        ("everloop.gate.planted", "import sqlalchemy\n", "No web, CLI, database"),
        ("everloop.serve.planted", "import everloop.kernel.planted_below\n", "Serving reads"),
        ("everloop.track.planted", "import pickle\n", "No pickle"),
        ("everloop.monitor.planted", "import joblib\n", "No pickle"),
    ],
)
def test_a_planted_forbidden_import_is_found(
    copy: Path, module: str, text: str, contract: str
) -> None:
    target = text.split()[1]
    if target.startswith("everloop."):
        plant(copy, target, '"""Planted."""\n')
    plant(copy, module, text)

    result = lint(copy)

    assert 1 == result.returncode, result.stdout + result.stderr
    broken = [line for line in result.stdout.splitlines() if "BROKEN" in line]
    assert any(line.startswith(contract) for line in broken), result.stdout


def test_a_package_that_is_not_placed_is_found(copy: Path) -> None:
    plant(copy, "everloop.novelty.planted", '"""Planted."""\n')

    result = lint(copy)

    assert 1 == result.returncode
    assert "novelty" in result.stdout


def test_a_cycle_between_siblings_is_found(copy: Path) -> None:
    plant(copy, "everloop.core.planted_a", "import everloop.core.planted_b\n")
    plant(copy, "everloop.core.planted_b", "import everloop.core.planted_a\n")

    result = lint(copy)

    assert 1 == result.returncode
    assert "planted_a" in result.stdout
