"""Triton's unmodified client in an environment of its own, in the cache folder of the parts."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.parts.found import triton_folder

SCENARIO = Path(__file__).parent / "triton_scenario.py"
PACKAGES = ("tritonclient[http,grpc]>=2.60",)


@pytest.fixture(scope="session")
def triton_client() -> Path:
    """Return the Python of the client."""
    return triton_folder() / "bin" / "python"


def run_scenario(python: Path, *arguments: str, timeout_s: float = 120) -> Any:
    """Run the scenario with the client's Python; return the JSON in its last line."""
    done = subprocess.run(
        [str(python), "-P", str(SCENARIO), *arguments],
        env={name: value for name, value in os.environ.items() if not name.startswith("EVERLOOP")},
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout_s,
    )
    assert done.returncode == 0, done.stderr[-6_000:] + done.stdout[-2_000:]
    return json.loads(done.stdout.splitlines()[-1])


def install_client() -> None:
    """Make the environment if it is missing; says what it does."""
    folder = triton_folder()
    if (folder / "made").exists():
        return
    uv = Path(sys.executable).parent / "uv"
    print(f"parts: Triton's client into {folder}", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    python = str(folder / "bin" / "python")
    try:
        make = [str(uv), "venv", "--quiet", "--python", sys.executable, str(folder)]
        subprocess.run(make, check=True)
        install = [str(uv), "pip", "install", "--quiet", "--compile-bytecode", "--python", python]
        subprocess.run([*install, *PACKAGES], check=True)
        (folder / "made").touch()
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"parts: Triton's client could not be installed: {error}", file=sys.stderr)
