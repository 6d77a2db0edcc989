"""Docker Compose: the exported image as one service, hardened, with its log in a volume."""

from __future__ import annotations

from typing import Final

from everloop.export.manifests import Manifest, to_yaml
from everloop.export.model import GRACE_S, LOG_PLACE, PORT, Placement, Subject, check_placement

FILE: Final = "compose.yaml"
_PROBE: Final = ["CMD", "python", "-m", "everloop.serve.probe"]


def compose_files(
    subject: Subject, placement: Placement, *, build: str | None = None
) -> dict[str, str]:
    """Return ``compose.yaml``.

    Args:
        subject: What is served.
        placement: Its image; the greatest number of replicas is not used here.
        build: Folder that `everloop export image` wrote, for Compose to build; None to pull.

    Raises:
        InvalidInput: ``export.setting_invalid``.
    """
    check_placement(placement)
    service: Manifest = {"image": placement.image}
    if build is not None:
        service["build"] = {"context": build}
    service |= {
        "restart": "unless-stopped",
        "stop_grace_period": f"{GRACE_S}s",
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "tmpfs": ["/tmp:size=64m,mode=1777"],  # noqa: S108 -- the container's own
        # From this machine alone; put a proxy with TLS before it for others.
        "ports": [f"127.0.0.1:{PORT}:{PORT}"],
        "volumes": [f"log:{LOG_PLACE}"],
        "healthcheck": {
            "test": _PROBE,
            "interval": "10s",
            "timeout": "3s",
            "start_period": "10s",
            "retries": 3,
        },
        "deploy": {
            "resources": {
                "limits": {"cpus": _cpus(placement.cpu), "memory": _memory(placement.memory)}
            }
        },
        "logging": {"driver": "json-file", "options": {"max-size": "10m", "max-file": "3"}},
    }
    project: Manifest = {
        "name": subject.name,
        "services": {subject.name: service},
        "volumes": {"log": {}},
    }
    return {FILE: to_yaml(project)}


def _cpus(quantity: str) -> str:
    """Return processors as Compose writes them: a number, without Kubernetes' thousandths."""
    if quantity.endswith("m"):
        return f"{int(quantity[:-1]) / 1000:g}"
    return quantity


def _memory(quantity: str) -> str:
    """Return memory as Compose writes it, where every unit is a power of 1024."""
    for unit, short in (("Ki", "k"), ("Mi", "m"), ("Gi", "g")):
        if quantity.endswith(unit):
            return quantity.removesuffix(unit) + short
    powers = {"k": 1000, "M": 1000**2, "G": 1000**3}
    scale = powers.get(quantity[-1:], 1)
    number = quantity[:-1] if quantity[-1:] in powers else quantity
    return f"{int(float(number) * scale)}b"
