"""A gigabyte up and down, by our client and by an unmodified one, in memory that stays small."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.parts.mlflow import NEWEST, client_environment, command_of, mlflow_server
from tests.parts.mlflow import MlflowServer as Server

__all__ = ["mlflow_server"]

pytestmark = [pytest.mark.campaign, pytest.mark.needs_mlflow]
SIZE = int(os.environ.get("EVERLOOP_CAMPAIGN_MIB", "1024")) << 20
MOST_GROWTH_MB = 64
PROGRAMS = Path(__file__).parent


def peak_mb(pid: int) -> float:
    """Return the most memory that a process has had, in MB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


@pytest.mark.parametrize("client", ["ours", "theirs"])
def test_a_gigabyte_passes_in_constant_memory(
    mlflow_server: Server, tmp_path: Path, client: str
) -> None:
    large = tmp_path / "large.bin"
    with large.open("wb") as file:
        for number in range(SIZE >> 20):
            file.write(number.to_bytes(8, "big") * (1 << 17))
    home = mlflow_server.project.home
    pid = json.loads((home / "server.json").read_text())["pid"]
    before = peak_mb(pid)
    script = PROGRAMS / ("large_ours.py" if client == "ours" else "large_theirs.py")
    command = [sys.executable, str(script)] if client == "ours" else command_of(NEWEST, script)
    variables = {"EVERLOOP_SPOOL": str(tmp_path / "spool")}

    done = subprocess.run(
        [*command, str(large), str(tmp_path / "back")],
        env=client_environment(mlflow_server) | variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )

    assert done.returncode == 0, done.stderr[-3_000:]
    back, grown = json.loads(done.stdout.splitlines()[-1])
    print(f"server {peak_mb(pid) - before:.0f} MB more, client {grown:.0f} MB more")
    assert subprocess.run(["cmp", large, back], check=False).returncode == 0
    assert grown < MOST_GROWTH_MB
    assert peak_mb(pid) - before < MOST_GROWTH_MB
