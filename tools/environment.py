"""Make the virtual environment that every `make` command uses, from uv.lock.

Runs on a bare system Python 3.11 or newer and imports nothing but the standard library. It must
never change anything outside the environment's folder, but for Debian's `python3-venv`, and that
only as root and only where Python cannot make an environment without it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OLDEST = (3, 11)
UV_REQUIREMENT = "uv>=0.6"


def main() -> int:
    """Make the environment and write the stamp; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv")
    parser.add_argument("--stamp", type=Path, default=ROOT / ".venv" / ".everloop-installed")
    options = parser.parse_args()
    venv: Path = options.venv.absolute()

    if sys.version_info < OLDEST:
        return _restart_with_newer_python()
    try:
        _make_venv(venv)
        _install_uv(venv)
        _sync(venv)
    except _Stopped as stopped:
        sys.stdout.flush()
        print(f"\ninstall: {stopped}", file=sys.stderr)
        return 1
    options.stamp.write_text("installed\n", encoding="utf-8")
    return 0


class _Stopped(Exception):
    """Installation cannot go on; the text says what to do."""


def _restart_with_newer_python() -> int:
    for name in ("python3.13", "python3.12", "python3.11"):
        found = shutil.which(name)
        if found:
            return subprocess.run([found, *sys.argv], check=False).returncode
    have = ".".join(str(part) for part in sys.version_info[:2])
    print(
        f"install: Everloop needs Python 3.11 or newer, this is {have} ({sys.executable}).\n"
        "Name a newer one: make PYTHON=/path/to/python3.12",
        file=sys.stderr,
    )
    return 1


def _make_venv(venv: Path) -> None:
    python = venv / "bin" / "python"
    if python.exists() and _works(python):
        return
    print(f"install: making {venv.name} with Python {sys.version.split()[0]}", flush=True)
    if not _has_ensurepip():
        _install_debian_venv()
    result = subprocess.run(
        [sys.executable, "-m", "venv", "--clear", str(venv)],
        check=False,
        capture_output=True,
        text=True,
    )
    if result.returncode != 0:
        raise _Stopped(f"python -m venv failed:\n{result.stdout}{result.stderr}")


def _works(python: Path) -> bool:
    """Tell whether the environment's Python starts, is new enough and has pip."""
    probe = f"import sys, pip; sys.exit(sys.version_info < {OLDEST!r})"
    result = subprocess.run([str(python), "-c", probe], check=False, capture_output=True)
    return result.returncode == 0


def _has_ensurepip() -> bool:
    # Debian ships the `venv` module without `ensurepip` until python3-venv is installed.
    result = subprocess.run(
        [sys.executable, "-c", "import ensurepip, venv"], check=False, capture_output=True
    )
    return result.returncode == 0


def _install_debian_venv() -> None:
    package = f"python{sys.version_info.major}.{sys.version_info.minor}-venv"
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise _Stopped(
            "this Python cannot make virtual environments.\n"
            f"On Debian or Ubuntu: sudo apt-get install {package}"
        )
    print(f"install: this Python lacks ensurepip, installing {package}", flush=True)
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "-y", "-q", "--no-install-recommends", package]
    if subprocess.run(install, check=False, env=environment).returncode == 0:
        return
    subprocess.run(["apt-get", "update", "-q"], check=False, env=environment)
    if subprocess.run(install, check=False, env=environment).returncode != 0:
        raise _Stopped(f"apt-get could not install {package}; install it and try again.")


def _install_uv(venv: Path) -> None:
    if (venv / "bin" / "uv").exists():
        return
    print("install: fetching uv", flush=True)
    python = str(venv / "bin" / "python")
    install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", UV_REQUIREMENT]
    if subprocess.run([python, *install], check=False).returncode != 0:
        raise _Stopped("pip could not install uv; is a package index reachable?")


def _sync(venv: Path) -> None:
    uv = str(venv / "bin" / "uv")
    environment = os.environ | {
        "UV_PROJECT_ENVIRONMENT": str(venv),
        "UV_PYTHON": str(venv / "bin" / "python"),
        "UV_PYTHON_DOWNLOADS": "never",
        "UV_LINK_MODE": os.environ.get("UV_LINK_MODE", "copy"),
    }
    # `--inexact` leaves pip and uv themselves where they are.
    sync = [
        uv,
        "sync",
        "--frozen",
        "--inexact",
        "--all-extras",
        # Gigabytes for graphics cards: tests that need these bring their own environment.
        "--no-extra=torch",
        "--no-extra=xgboost",
        "--all-groups",
        "--compile-bytecode",
        "--quiet",
    ]
    print("install: installing what uv.lock says (a minute or two, the first time)", flush=True)
    if subprocess.run(sync, check=False, cwd=ROOT, env=environment).returncode == 0:
        return
    rule = "!" * 78
    print(
        f"\n{rule}\nuv.lock could not be honoured here (the message is above). Installing by the\n"
        "ranges in pyproject.toml from this machine's index instead: the versions may\n"
        f"differ from the tested ones.\n{rule}\n",
        file=sys.stderr,
        flush=True,
    )
    pip = [str(venv / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check"]
    result = subprocess.run(
        [*pip, "--quiet", "--editable", ".[all]", *_dev_requirements()], check=False, cwd=ROOT
    )
    if result.returncode != 0:
        raise _Stopped("neither the lock nor the ranges could be installed.")


def _dev_requirements() -> list[str]:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return [str(item) for item in project["dependency-groups"]["dev"]]


if __name__ == "__main__":
    raise SystemExit(main())
