"""What is exported, and how it is to run: plain values that every template is filled from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from everloop.core.digest import Digest, sha256_digest
from everloop.core.errors import InvalidInput
from everloop.core.ids import Id
from everloop.serve.bundle import DESCRIPTION, Bundle

PORT: Final = 8080
GRPC_PORT: Final = 8081
USER: Final = 10001
BUNDLE_PLACE: Final = "/srv/everloop/bundle"
LOG_PLACE: Final = "/var/lib/everloop"
TOKENS_PLACE: Final = "/run/secrets/everloop/tokens"
# A pod is asked to end after this; the server drains in less.
GRACE_S: Final = 30
MOST_REPLICAS: Final = 10_000
_LABEL: Final = re.compile(r"[^a-z0-9-]+")
_IMAGE: Final = re.compile(
    r"[a-z0-9]+(?:[._-]+[a-z0-9]+)*(?::[0-9]+)?(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9._-]{0,127})?(?:@sha256:[0-9a-f]{64})?"
)
_QUANTITY: Final = re.compile(r"[0-9]+(?:\.[0-9]+)?(?:m|k|M|G|T|Ki|Mi|Gi|Ti)?")
_NAMESPACE: Final = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")

Files = Mapping[str, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """The sealed bundle of one model version, as the templates see it.

    Attributes:
        bundle: Its description.
        files: All its files by their names.
        public_key: Hex of the key that sealed it.
        seal: SHA-256 of the sealed description: names the bundle and, through it, every file.
    """

    bundle: Bundle
    files: Files = field(repr=False)
    public_key: str

    @property
    def seal(self) -> Digest:
        """Digest of the description that the signature covers."""
        return sha256_digest(self.files[DESCRIPTION])

    @property
    def name(self) -> str:
        """A name that every platform takes: a DNS label of the deployment's or model's name."""
        return dns_label(self.bundle.deployment or self.bundle.model)

    @property
    def version_id(self) -> Id:
        """The model version."""
        return self.bundle.version_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """How many of it run, with what, and where.

    Attributes:
        image: Reference of the image.
        namespace: Kubernetes namespace; None leaves it to whoever applies the manifests.
        replicas: Least and greatest number of pods.
        cpu: Processors of one pod, as Kubernetes writes them.
        memory: Memory of one pod, as Kubernetes writes it.
        tokens_secret: Secret whose key ``tokens`` holds the hashes of tokens; None for none.
    """

    image: str
    namespace: str | None = None
    replicas: tuple[int, int] = (2, 6)
    cpu: str = "1"
    memory: str = "512Mi"
    tokens_secret: str | None = None


def dns_label(name: str) -> str:
    """Return a name as a DNS label (RFC 1123): at most 50 lower-case letters, digits and hyphens.

    Thirteen characters are left for what a platform puts behind it.
    """
    label = _LABEL.sub("-", name.lower()).strip("-")[:50].strip("-")
    return label if label and label[0].isalpha() else f"model-{label}".strip("-")


def check_image(name: str) -> str:
    """Return the name of an image unchanged if it is one; a line of a Dockerfile has only one.

    Raises:
        InvalidInput: ``export.setting_invalid``.
    """
    if _IMAGE.fullmatch(name) is None or len(name) > 500:
        raise _wrong(
            f"{name[:60]!r} is no name of an image",
            "Write it as registry.example.com/team/credit:1.4.0, or with @sha256:...",
        )
    return name


def check_placement(placement: Placement) -> Placement:
    """Return the placement unchanged if every platform can take it.

    Raises:
        InvalidInput: ``export.setting_invalid``.
    """
    least, most = placement.replicas
    check_image(placement.image)
    if not 0 <= least <= most or not 1 <= most <= MOST_REPLICAS:
        raise _wrong(
            f"{least}:{most} are no least and greatest number of replicas",
            f"Write 3, or the least and the most as 2:6; at most {MOST_REPLICAS}.",
        )
    quantity, label = "Write it as Kubernetes does: {}.", "Write a DNS label, such as {}."
    for what, value, pattern, hint in (
        ("namespace", placement.namespace, _NAMESPACE, label.format("team-models")),
        ("number of processors", placement.cpu, _QUANTITY, quantity.format("1, 0.5 or 500m")),
        ("size of a memory", placement.memory, _QUANTITY, quantity.format("512Mi or 2Gi")),
        ("name of a secret", placement.tokens_secret, _NAMESPACE, label.format("credit-tokens")),
    ):
        if value is not None and pattern.fullmatch(value) is None:
            raise _wrong(f"{value[:60]!r} is no {what}", hint)
    return placement


def _wrong(what: str, hint: str) -> InvalidInput:
    return InvalidInput("export.setting_invalid", f"{what}.", hint=hint)
