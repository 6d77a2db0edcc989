"""What a run ran in: code, packages, interpreter, machine and command line, without secrets."""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import msgspec

from everloop.core.digest import Digest, content_digest
from everloop.track import nvml
from everloop.track.code import Code, read_code
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


class Lock(msgspec.Struct, frozen=True, kw_only=True):
    """The lock file in force."""

    name: str
    digest: Digest


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """Everything recorded about where a run ran.

    Attributes:
        variables: Those that change numbers, and those asked for, masked where they look secret.
        packages: ``name==version`` of what is installed, sorted.
        processor: Its name, where the system tells it.
        gpus: Name and memory of each graphics card that NVML shows.
        seeds: What the generators of ``random``, numpy and torch were seeded with, where they tell
            it; else a digest of their state, which at least shows whether two runs began alike.
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
    processor: str | None = None
    gpus: tuple[str, ...] = ()
    seeds: dict[str, str] = msgspec.field(default_factory=dict)


def capture_environment(
    root: Path,
    *,
    command: Sequence[str] | None = None,
    environ: Mapping[str, str] | None = None,
    names: Sequence[str] = (),
    seeds: Mapping[str, str] | None = None,
) -> Environment:
    """Describe this process for a run; never raises for a part that cannot be found out.

    Args:
        root: Folder of the project, where git and the lock file are looked for.
        command: Command line; that of this process when None.
        environ: Environment variables; those of this process when None.
        names: Further variables to record.
        seeds: What ``read_seeds`` told when the run began; it is asked now when None.
    """
    source = os.environ if environ is None else environ
    seeding = [name for name in source if name.upper().endswith("_SEED") or name == "SEED"]
    wanted = sorted({*VARIABLES, *names, *seeding} & source.keys())
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
        processor=_name_processor(),
        gpus=nvml.list_gpus(),
        seeds=dict(read_seeds() if seeds is None else seeds),
    )


def read_seeds() -> dict[str, str]:
    """Return what the random generators of this process tell about themselves, by library.

    Nothing is imported and nothing is drawn; a library that is not loaded is left out.
    """
    readers = {"random": _seed_of_random, "numpy": _seed_of_numpy, "torch": _seed_of_torch}
    found = {}
    for name, read in readers.items():
        module = sys.modules.get(name)
        try:
            if module is not None:
                found[name] = read(module)
        except Exception:  # noqa: BLE001, S112 -- another library's state; a run begins without it
            continue
    return found


def _seed_of_random(random: Any) -> str:
    return _state(repr(random.getstate()).encode())


def _seed_of_numpy(numpy: Any) -> str:
    if "numpy.random" not in sys.modules:
        return "not used"
    state = numpy.random.get_state(legacy=False)
    words = state.get("state", {}).get("key")
    if words is None:
        return _state(repr(state).encode())
    digest = _state(words.tobytes() + str(state["state"]["pos"]).encode())
    # A Mersenne Twister that was seeded with a number and not drawn from begins with that number.
    seed = int(words[0])
    fresh = numpy.random.RandomState(seed).get_state(legacy=False)["state"]
    is_fresh = fresh["pos"] == state["state"]["pos"] and (fresh["key"] == words).all()
    return str(seed) if is_fresh else digest


def _seed_of_torch(torch: Any) -> str:
    return str(torch.initial_seed())


def _state(data: bytes) -> str:
    return f"state {hashlib.blake2b(data, digest_size=8).hexdigest()}"


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


@lru_cache(maxsize=1)
def list_packages() -> tuple[str, ...]:
    """Return ``name==version`` of every installed distribution, sorted."""
    found = {
        f"{name}=={distribution.version}"
        for distribution in metadata.distributions()
        if (name := distribution.metadata["Name"])
    }
    return tuple(sorted(found, key=str.lower))


def _count_cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _count_memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None


@lru_cache(maxsize=1)
def _name_processor() -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return platform.processor() or None
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, None) or platform.processor() or None
