"""What a run ran in: code, packages, interpreter, machine and command line, without secrets."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Final

import msgspec

from everloop.core.digest import Digest, content_digest
from everloop.track.masking import mask_arguments, mask_value

LOCK_FILES: Final = (
    "uv.lock", "poetry.lock", "pdm.lock", "pixi.lock", "pylock.toml", "Pipfile.lock",
    "conda-lock.yml", "requirements.lock", "requirements.txt",
)  # fmt: skip
# Variables that change numbers; everything else stays out, for environments are full of secrets.
VARIABLES: Final = (
    "CUDA_VISIBLE_DEVICES", "CUBLAS_WORKSPACE_CONFIG", "LANG", "LC_ALL", "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_CORETYPE", "OPENBLAS_NUM_THREADS",
    "PYTHONHASHSEED", "PYTHONOPTIMIZE", "TZ",
)  # fmt: skip
_GIT_TIMEOUT_S: Final = 5.0
_MAX_UNTRACKED_BYTES: Final = 10 * 1024 * 1024


class Code(msgspec.Struct, frozen=True, kw_only=True):
    """The state of the git repository.

    Attributes:
        commit: Full hex name of HEAD.
        branch: Its branch, None when detached.
        patch: Digest over the changes since that commit and over new files; None when clean.
    """

    commit: str
    branch: str | None
    patch: Digest | None


class Lock(msgspec.Struct, frozen=True, kw_only=True):
    """The lock file in force."""

    name: str
    digest: Digest


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """Everything recorded about where a run ran.

    Attributes:
        variables: Those that change numbers, and those asked for, masked where they look secret.
        packages: ``name==version`` of what is installed, sorted.
    """

    code: Code | None
    lock: Lock | None
    python: str
    implementation: str
    platform: str
    machine: str
    cpus: int
    memory_bytes: int | None
    command: tuple[str, ...]
    variables: dict[str, str]
    packages: tuple[str, ...]


def capture_environment(
    root: Path,
    *,
    command: Sequence[str] | None = None,
    environ: Mapping[str, str] | None = None,
    names: Sequence[str] = (),
) -> Environment:
    """Describe this process for a run; never raises for a part that cannot be found out.

    Args:
        root: Folder of the project, where git and the lock file are looked for.
        command: Command line; that of this process when None.
        environ: Environment variables; those of this process when None.
        names: Further variables to record.
    """
    source = os.environ if environ is None else environ
    seeds = [name for name in source if name.upper().endswith("_SEED") or name == "SEED"]
    wanted = sorted({*VARIABLES, *names, *seeds} & source.keys())
    return Environment(
        code=read_code(root),
        lock=find_lock(root),
        python=platform.python_version(),
        implementation=platform.python_implementation(),
        platform=platform.platform(),
        machine=platform.machine(),
        cpus=_count_cpus(),
        memory_bytes=_count_memory(),
        command=mask_arguments(sys.argv if command is None else command),
        variables={name: mask_value(name, source[name]) for name in wanted},
        packages=list_packages(),
    )


def find_lock(root: Path) -> Lock | None:
    """Return the nearest lock file in the folder or above it, up to the repository's top."""
    for folder in (root.resolve(), *root.resolve().parents):
        for name in LOCK_FILES:
            path = folder / name
            if path.is_file():
                return Lock(name=name, digest=content_digest(path.read_bytes()))
        if (folder / ".git").exists():
            return None
    return None


def read_code(root: Path) -> Code | None:
    """Return the state of the git repository around the folder, or None outside one."""
    commit = _git(root, "rev-parse", "HEAD")
    if commit is None:
        return None
    branch = _git(root, "symbolic-ref", "--short", "-q", "HEAD")
    return Code(
        commit=commit.decode().strip(),
        branch=branch.decode().strip() if branch else None,
        patch=_patch_digest(root),
    )


@lru_cache(maxsize=1)
def list_packages() -> tuple[str, ...]:
    """Return ``name==version`` of every installed distribution, sorted."""
    found = {
        f"{name}=={distribution.version}"
        for distribution in metadata.distributions()
        if (name := distribution.metadata["Name"])
    }
    return tuple(sorted(found, key=str.lower))


def _patch_digest(root: Path) -> Digest | None:
    changes = _git(root, "diff", "HEAD", "--binary", "--no-ext-diff", "--no-textconv") or b""
    listed = _git(root, "ls-files", "--others", "--exclude-standard", "-z", "--full-name") or b""
    top = _git(root, "rev-parse", "--show-toplevel")
    if not changes and not listed:
        return None
    hasher = hashlib.blake2b(changes)
    for name in sorted(filter(None, listed.split(b"\0"))):
        hasher.update(b"\0" + name + b"\0")
        path = Path(os.fsdecode((top or b".").strip())) / os.fsdecode(name)
        if path.is_file() and path.stat().st_size <= _MAX_UNTRACKED_BYTES:
            hasher.update(path.read_bytes())
    return content_digest(hasher.digest())


def _git(root: Path, *arguments: str) -> bytes | None:
    program = shutil.which("git")
    if program is None or not root.is_dir():
        return None
    try:
        done = subprocess.run(  # noqa: S603 -- a fixed program with fixed arguments
            [program, *arguments],
            cwd=root,
            capture_output=True,
            check=False,
            timeout=_GIT_TIMEOUT_S,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _count_cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _count_memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None
