"""A folder that builds as an OCI image anywhere: no server of ours, no shell, no network but pip's.

One image answers as every platform asks: the server finds the model and the port by what the
platform sets. The image runs as a user without rights, on a root that may be read-only.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Final

import msgspec

from everloop.core.digest import sha256_digest
from everloop.export.lock import SYSTEM_PACKAGES, Locked, known_pythons, locked, requirements
from everloop.export.model import (
    BUNDLE_PLACE,
    GRPC_PORT,
    LOG_PLACE,
    PORT,
    USER,
    Subject,
    check_image,
)
from everloop.export.readme import image_readme
from everloop.export.sbom import sbom
from everloop.export.wheel import installed_version, serving_wheel

DOCKERFILE: Final = "Dockerfile"
LOCK: Final = "requirements.lock"
SBOM: Final = "sbom.cdx.json"
SUMMARY: Final = "export.json"
BUNDLE: Final = "bundle"
BASE: Final = "docker.io/library/python:{python}-slim-bookworm"
PLACE: Final = "/opt/everloop"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What goes into an image.

    Attributes:
        subject: The bundle in it; None for an image that serves what is mounted or fetched.
        formats: Formats of models that it can answer for.
        public_key: Hex of the only key whose bundles it accepts.
        python: Its Python, such as ``3.11``.
        base: Image to build upon; a slim Python image of that version when None.
        also: What else the server is to do, of `everloop.export.lock.ALSO`; an image without a
            model fetches from object storage whether it is named or not.
    """

    subject: Subject | None
    formats: tuple[str, ...]
    public_key: str
    python: str
    base: str | None = None
    also: tuple[str, ...] = ()

    @property
    def base_image(self) -> str:
        """The image that it is built upon when the build names no other."""
        return check_image(self.base or BASE.format(python=self.python))

    @property
    def distributions(self) -> tuple[Locked, ...]:
        """What is installed from a package index."""
        also = self.also if self.subject is not None else ("storage", *self.also)
        return locked(self.python, self.formats, also)

    @property
    def title(self) -> str:
        """Name and tag that the image is given in examples."""
        if self.subject is None:
            return f"everloop-serve:{installed_version()}"
        return f"{self.subject.name}:{self.subject.bundle.semver}"


def default_python() -> str:
    """Return the Python of this process if there is a lock for it, else the newest that has one."""
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    known = known_pythons()
    return here if here in known else known[-1]


def image_files(recipe: Recipe) -> dict[str, bytes]:
    """Return the files of a folder that builds as an image, by name; the same for the same input.

    Raises:
        InvalidInput: there is no lock for that Python.
        UnsafeArtifact: an image cannot answer for that format.
    """
    wheel = serving_wheel()
    lock = requirements(recipe.distributions, wheel.file, wheel.digest)
    texts = {
        DOCKERFILE: _dockerfile(recipe, wheel.file),
        ".dockerignore": _dockerignore(wheel.file, has_model=recipe.subject is not None),
        "README.md": image_readme(recipe.title, recipe.subject),
        LOCK: lock,
        SBOM: sbom(recipe.subject, recipe.distributions, wheel, recipe.title),
    }
    files = {name: text.encode() for name, text in texts.items()}
    files[wheel.file] = wheel.data
    if recipe.subject is not None:
        files |= {f"{BUNDLE}/{name}": data for name, data in recipe.subject.files.items()}
    files[SUMMARY] = summary("image", recipe.subject, files)
    return dict(sorted(files.items()))


def summary(what: str, subject: Subject | None, files: dict[str, bytes]) -> bytes:
    """Return the description of an export: what it is of, and the digest of every file."""
    told: dict[str, object] = {"what": what, "everloop": installed_version()}
    if subject is not None:
        bundle = subject.bundle
        told |= {
            "deployment": bundle.deployment,
            "model": bundle.model,
            "version": bundle.semver,
            "number": bundle.number,
            "version_id": bundle.version_id,
            "artifact": bundle.artifact,
            "seal": subject.seal,
            "public_key": subject.public_key,
        }
    told["files"] = {name: sha256_digest(data) for name, data in sorted(files.items())}
    return msgspec.json.format(msgspec.json.encode(told), indent=2) + b"\n"


def labels(recipe: Recipe) -> dict[str, str]:
    """Return the image's labels, those of OCI first (image-spec, annotations.md)."""
    found = {
        "org.opencontainers.image.title": recipe.title.partition(":")[0],
        "org.opencontainers.image.description": "Everloop's server for sealed model bundles.",
        "org.opencontainers.image.vendor": "Everloop",
        "org.opencontainers.image.base.name": recipe.base_image,
        "io.everloop.version": installed_version(),
        "io.everloop.public-key": recipe.public_key,
        "io.everloop.formats": ",".join(recipe.formats),
    }
    if recipe.subject is None:
        return found | {"org.opencontainers.image.version": installed_version()}
    bundle = recipe.subject.bundle
    return found | {
        "org.opencontainers.image.version": bundle.semver,
        "org.opencontainers.image.revision": recipe.subject.seal,
        "org.opencontainers.image.description": f"Model {bundle.model} {bundle.semver} "
        "as a sealed bundle, with its server.",
        "io.everloop.model": bundle.model,
        "io.everloop.model.version": bundle.version_id,
        "io.everloop.model.artifact": bundle.artifact,
    }


def _dockerfile(recipe: Recipe, wheel: str) -> str:
    parts = [_HEAD.format(base=recipe.base_image, title=recipe.title)]
    parts.append(_BUILD.format(place=PLACE, lock=LOCK, wheel=wheel))
    parts.append("FROM ${BASE}")
    packages = sorted({name for one in recipe.formats for name in SYSTEM_PACKAGES.get(one, ())})
    if packages:
        parts.append(_PACKAGES.format(packages=" ".join(packages)))
    parts.append(_STATE.format(user=USER, log=LOG_PLACE))
    copies = [f'COPY --from=build ["{PLACE}", "{PLACE}"]']
    if recipe.subject is not None:
        copies.append(f'COPY ["{BUNDLE}", "{BUNDLE_PLACE}"]')
    parts.append("\n".join(copies))
    parts.append(_variables(recipe))
    told = " \\\n".join(f"      {name}={json.dumps(text)}" for name, text in labels(recipe).items())
    parts.append("LABEL " + told.lstrip())
    ports = f"{PORT} {GRPC_PORT}" if "grpc" in recipe.also else str(PORT)
    parts.append(_TAIL.format(ports=ports, user=USER, log=LOG_PLACE))
    return "\n\n".join(parts)


def _variables(recipe: Recipe) -> str:
    found = {
        "PATH": f"{PLACE}/bin:/usr/local/bin:/usr/bin:/bin",
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONSAFEPATH": "1",
        "EVERLOOP_HOST": "0.0.0.0",  # noqa: S104 -- in a container, whose ports are opened outside
        "EVERLOOP_LOG": LOG_PLACE,
        "EVERLOOP_PUBLIC_KEY": recipe.public_key,
    }
    if "grpc" in recipe.also:
        found["EVERLOOP_GRPC_PORT"] = str(GRPC_PORT)
    if recipe.subject is not None:
        found["EVERLOOP_MODEL"] = BUNDLE_PLACE
    return "ENV " + " \\\n    ".join(f"{name}={json.dumps(text)}" for name, text in found.items())


def _dockerignore(wheel: str, *, has_model: bool) -> str:
    kept = [LOCK, wheel, *([BUNDLE] if has_model else [])]
    return "*\n" + "".join(f"!{name}\n" for name in kept)


_HEAD: Final = """\
# Built anywhere with: docker build --tag {title} .
# For a build that never changes, name the base by its digest:
#   --build-arg BASE=docker.io/library/python@sha256:...
ARG BASE={base}"""

_BUILD: Final = """\
FROM ${{BASE}} AS build
WORKDIR /build
COPY ["{lock}", "{wheel}", "./"]
RUN ["python", "-m", "venv", "--without-pip", "{place}"]
# Two programs and no shell to join them.
# hadolint ignore=DL3059
RUN ["python", "-m", "pip", "--python", "{place}/bin/python", "install", "--no-deps", \
"--require-hashes", "--only-binary=:all:", "--no-cache-dir", "--disable-pip-version-check", \
"--no-input", "--requirement", "{lock}"]"""

# Versions of system packages are not pinned: a distribution keeps only the newest, with its fixes.
_PACKAGES: Final = """\
# hadolint ignore=DL3008
RUN apt-get update \\
 && apt-get install --yes --no-install-recommends {packages} \\
 && rm -rf /var/lib/apt/lists/*"""

_STATE: Final = """\
# The group is 0 so that platforms that choose a user themselves can write here too.
RUN ["install", "--directory", "--owner={user}", "--group=0", "--mode=0770", "{log}"]"""

_TAIL: Final = """\
VOLUME ["{log}"]
EXPOSE {ports}
USER {user}:0
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \\
    CMD ["python", "-m", "everloop.serve.probe"]
ENTRYPOINT ["everloop-serve"]
"""
