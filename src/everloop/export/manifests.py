"""Manifests as YAML text, and the parts of a pod that every platform on Kubernetes shares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import yaml

from everloop.export.model import (
    GRACE_S,
    GRPC_PORT,
    LOG_PLACE,
    PORT,
    TOKENS_PLACE,
    USER,
    Placement,
    Subject,
)

Manifest = dict[str, Any]
READY: Final = "/readyz"
LIVE: Final = "/healthz"
NOTE: Final = "# Written by `everloop export`; export again instead of editing.\n"
LOG_SIZE: Final = "1Gi"


class _Dumper(yaml.SafeDumper):
    """Writes lists indented, as people do in manifests, and never an alias."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        """Indent lists within mappings."""
        del indentless
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:
        """Write a value again instead of referring to it."""
        del data
        return True


def to_yaml(*manifests: Mapping[str, Any]) -> str:
    """Return manifests as one YAML text, documents in the order given."""
    texts = [
        yaml.dump(dict(one), Dumper=_Dumper, sort_keys=False, width=100, allow_unicode=True)
        for one in manifests
    ]
    return NOTE + "---\n".join(texts)


def labels(subject: Subject, component: str = "server") -> dict[str, str]:
    """Return the labels that Kubernetes recommends, for every object of an export."""
    return selector(subject) | {
        "app.kubernetes.io/version": subject.bundle.semver,
        "app.kubernetes.io/component": component,
        "app.kubernetes.io/part-of": "everloop",
        "app.kubernetes.io/managed-by": "everloop-export",
    }


def selector(subject: Subject) -> dict[str, str]:
    """Return the labels by which pods are found; they stay the same over versions."""
    return {"app.kubernetes.io/name": "everloop-serve", "app.kubernetes.io/instance": subject.name}


def origin(subject: Subject) -> dict[str, str]:
    """Return what leads from a running object back to the model version."""
    bundle = subject.bundle
    return {
        "everloop.io/model": bundle.model,
        "everloop.io/version": bundle.semver,
        "everloop.io/version-id": bundle.version_id,
        "everloop.io/artifact": bundle.artifact,
        "everloop.io/seal": subject.seal,
    }


def metadata(subject: Subject, placement: Placement, name: str | None = None) -> Manifest:
    """Return an object's metadata."""
    found: Manifest = {"name": name or subject.name}
    if placement.namespace is not None:
        found["namespace"] = placement.namespace
    return found | {"labels": labels(subject), "annotations": origin(subject)}


def container(
    subject: Subject,
    placement: Placement,
    *,
    name: str = "server",
    port: int = PORT,
    probes: bool = True,
) -> Manifest:
    """Return the container: without rights, on a read-only root, with probes and bounds."""
    found: Manifest = {
        "name": name,
        "image": placement.image,
        "env": [{"name": "PORT", "value": str(port)}, *_tokens_variable(placement)],
        "ports": [{"name": "http", "containerPort": port, "protocol": "TCP"}],
        "resources": resources(placement),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": volume_mounts(placement),
    }
    if probes:
        found |= {
            "startupProbe": probe(READY, port, period_s=1, failures=60),
            "readinessProbe": probe(READY, port, period_s=5, failures=2),
            "livenessProbe": probe(LIVE, port, period_s=10, failures=3),
        }
    return found


def resources(placement: Placement) -> Manifest:
    """Return what a pod may use: memory is bounded, processor time is only asked for.

    A bound on processor time stops a server in the middle of an answer; see the Kubernetes
    documentation on CPU limits and throttling.
    """
    return {
        "requests": {"cpu": placement.cpu, "memory": placement.memory},
        "limits": {"memory": placement.memory},
    }


def probe(path: str, port: int | str, *, period_s: int, failures: int) -> Manifest:
    """Return a probe by HTTP."""
    return {
        "httpGet": {"path": path, "port": port},
        "periodSeconds": period_s,
        "timeoutSeconds": 2,
        "failureThreshold": failures,
    }


def pod_security() -> Manifest:
    """Return the security context of a pod that meets the standard named ``restricted``."""
    return {
        "runAsNonRoot": True,
        "runAsUser": USER,
        "runAsGroup": 0,
        "fsGroup": USER,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def volume_mounts(placement: Placement) -> list[Manifest]:
    """Return where the volumes of `volumes` appear in the container."""
    found: list[Manifest] = [
        {"name": "log", "mountPath": LOG_PLACE},
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 -- a volume of the pod's own
    ]
    if placement.tokens_secret is not None:
        folder = TOKENS_PLACE.rpartition("/")[0]
        found.append({"name": "tokens", "mountPath": folder, "readOnly": True})
    return found


def volumes(placement: Placement) -> list[Manifest]:
    """Return the pod's volumes: the prediction log, and tokens where there are any."""
    found: list[Manifest] = [
        {"name": "log", "emptyDir": {"sizeLimit": LOG_SIZE}},
        {"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": "64Mi"}},
    ]
    if placement.tokens_secret is not None:
        secret = {"secretName": placement.tokens_secret, "defaultMode": 0o440}
        found.append({"name": "tokens", "secret": secret})
    return found


def pod(containers: Sequence[Manifest], placement: Placement) -> Manifest:
    """Return a pod that talks to nobody by itself: no service account's token, no rights."""
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": GRACE_S,
        "securityContext": pod_security(),
        "containers": list(containers),
        "volumes": volumes(placement),
    }


def grpc_port(port: int = GRPC_PORT) -> Manifest:
    """Return the container's port for gRPC."""
    return {"name": "grpc", "containerPort": port, "protocol": "TCP"}


def _tokens_variable(placement: Placement) -> list[Manifest]:
    if placement.tokens_secret is None:
        return []
    return [{"name": "EVERLOOP_TOKENS_FILE", "value": TOKENS_PLACE}]
