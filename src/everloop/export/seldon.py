"""Seldon Core: version 1 with a deployment of our image, version 2 with a server and its models.

Version 2 downloads a bundle with its agent and loads it through the model repository extension
of the Open Inference Protocol, so one server of ours takes many models.
"""

from __future__ import annotations

from typing import Final

from everloop.core.errors import InvalidInput
from everloop.export.manifests import (
    Manifest,
    container,
    metadata,
    pod_security,
    to_yaml,
    volumes,
)
from everloop.export.model import GRACE_S, Placement, Subject, check_placement

# The ports at which Seldon's own sidecars ask a model's container.
SELDON_PORT: Final = 9000
SELDON_GRPC_PORT: Final = 9500
CAPABILITY: Final = "everloop"
# The container that the agent of version 2 stands beside is named so in its ServerConfig.
AGENT_CONTAINER: Final = "mlserver"
AGENT_MODELS: Final = "/mnt/agent/models"


def seldon1_files(subject: Subject, placement: Placement) -> dict[str, str]:
    """Return the manifest for Seldon Core 1: an image that holds the bundle.

    Raises:
        InvalidInput: ``export.setting_invalid``.
    """
    check_placement(placement)
    made = container(subject, placement, name=subject.name, port=SELDON_PORT)
    manifest: Manifest = {
        "apiVersion": "machinelearning.seldon.io/v1",
        "kind": "SeldonDeployment",
        "metadata": metadata(subject, placement),
        "spec": {
            "name": subject.name,
            "protocol": "v2",
            "predictors": [
                {
                    "name": "default",
                    "replicas": max(placement.replicas[0], 1),
                    "traffic": 100,
                    "graph": {"name": subject.name, "type": "MODEL", "children": []},
                    "componentSpecs": [
                        {
                            "spec": {
                                "terminationGracePeriodSeconds": GRACE_S,
                                "securityContext": pod_security(),
                                "containers": [made],
                                "volumes": volumes(placement),
                            }
                        }
                    ],
                }
            ],
        },
    }
    return {"seldon-deployment.yaml": to_yaml(manifest)}


def seldon2_files(subject: Subject, placement: Placement, *, storage_uri: str) -> dict[str, str]:
    """Return the manifests for Seldon Core 2: a server of ours, and the model on it.

    Args:
        subject: What is served.
        placement: The image without a model.
        storage_uri: Where the bundle lies, as rclone names it.

    Raises:
        InvalidInput: ``export.setting_invalid``.
    """
    check_placement(placement)
    if "://" not in storage_uri or storage_uri != storage_uri.strip():
        raise InvalidInput(
            "export.setting_invalid",
            f"{storage_uri[:80]!r} is no address of a bundle.",
            hint="Write it as rclone does, such as s3://models/credit/1.4.0.",
        )
    least, most = placement.replicas
    server = metadata(subject, placement, CAPABILITY)
    del server["annotations"]
    variables = [
        {"name": "PORT", "value": str(SELDON_PORT)},
        {"name": "EVERLOOP_GRPC_PORT", "value": str(SELDON_GRPC_PORT)},
        {"name": "EVERLOOP_MODEL", "value": AGENT_MODELS},
        # The agent beside it loads and unloads; whoever asks from outside goes through Seldon.
        {"name": "EVERLOOP_REPOSITORY", "value": "open"},
        # It asks for a model by the folder that it put the bundle into: credit_1, then credit_2.
        {"name": "EVERLOOP_NAMES", "value": "folder"},
    ]
    manifests: tuple[Manifest, Manifest] = (
        {
            "apiVersion": "mlops.seldon.io/v1alpha1",
            "kind": "Server",
            "metadata": server,
            "spec": {
                "serverConfig": AGENT_CONTAINER,
                "capabilities": [CAPABILITY],
                "replicas": max(least, 1),
                "podSpec": {
                    "containers": [
                        {
                            "name": AGENT_CONTAINER,
                            "image": placement.image,
                            "env": variables,
                            "resources": {
                                "requests": {"cpu": placement.cpu, "memory": placement.memory},
                                "limits": {"memory": placement.memory},
                            },
                        }
                    ]
                },
            },
        },
        {
            "apiVersion": "mlops.seldon.io/v1alpha1",
            "kind": "Model",
            "metadata": metadata(subject, placement),
            "spec": {
                "storageUri": storage_uri,
                "requirements": [CAPABILITY],
                "memory": placement.memory,
                "minReplicas": max(least, 1),
                "maxReplicas": most,
            },
        },
    )
    return {"server.yaml": to_yaml(manifests[0]), "model.yaml": to_yaml(manifests[1])}
