"""Install what the tests drive beside our environment: databases, a browser, clients, validators.

Clients and validators come by uv into a cache folder. As root on Debian the programs come by
apt-get; elsewhere the missing ones are named and the tests that need them are skipped (on CI they
fail).
Exits 0 either way: pytest is the judge, not this file.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

# Root of the repository, so that `tests.parts` is found whatever the working folder.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.parts.found import PARTS, Part
from tests.parts.mlflow import install_clients
from tests.parts.triton import install_client
from tests.parts.validators import install_validators


def main() -> int:
    """Install what is missing, where permitted; say loudly what stays missing."""
    install_clients()
    install_client()
    install_validators()
    missing = [part for part in PARTS if part.lacks()]
    if missing and os.geteuid() == 0 and shutil.which("apt-get"):
        packages = [package for part in missing for package in part.packages]
        if packages:
            _install(packages)
        missing = [part for part in PARTS if part.lacks()]
    for part in missing:
        print(_warning(part), file=sys.stderr)
    return 0


def _install(packages: list[str]) -> None:
    print(f"parts: apt-get install {' '.join(packages)}", flush=True)
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "-y", "-q", "--no-install-recommends", *packages]
    if _quiet(install, environment):
        return
    _quiet(["apt-get", "update", "-q"], environment)
    _quiet(install, environment)


def _quiet(command: list[str], environment: dict[str, str]) -> bool:
    result = subprocess.run(
        command,
        check=False,
        env=environment,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    if result.returncode != 0:
        print(result.stderr[-2000:], file=sys.stderr)
    return result.returncode == 0


def _warning(part: Part) -> str:
    rule = "!" * 78
    fate = "FAIL (CI=true)" if os.environ.get("CI") == "true" else "be SKIPPED"
    way = "On Debian: sudo apt-get install " + " ".join(part.packages)
    return (
        f"{rule}\n{part.name} is not here ({', '.join(part.lacks())}): the tests that need it will"
        f" {fate}.\n{way if part.packages else 'It comes by pip: see what uv said above.'}\n{rule}"
    )


if __name__ == "__main__":
    raise SystemExit(main())
