"""KServe: a serving runtime of ours, and an inference service that uses it.

With an address of a bundle, KServe's own downloader mounts it at ``/mnt/models`` and the runtime's
image serves it; without one the image holds the bundle. A canary is a second predictor with a
share of the traffic (``spec.canary``, KServe 0.20 and later).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from everloop.core.errors import InvalidInput
from everloop.export.manifests import (
    READY,
    Manifest,
    container,
    labels,
    metadata,
    pod_security,
    probe,
    to_yaml,
    volumes,
)
from everloop.export.model import (
    GRACE_S,
    PORT,
    Placement,
    Subject,
    check_placement,
)

FORMAT: Final = "everloop"
RUNTIME: Final = "everloop-serve"
CONTAINER: Final = "kserve-container"
SCHEMES: Final = ("s3://", "gs://", "https://", "http://", "pvc://", "hdfs://", "webhdfs://")


@dataclass(frozen=True, slots=True, kw_only=True)
class Canary:
    """The second predictor: an image or an address of a bundle, and its share of the traffic.

    Attributes:
        image: Image with the new bundle; None where the address names it.
        storage_uri: Address of the new bundle; None where the image holds it.
        percent: Its share, from 1 to 99.
    """

    image: str | None = None
    storage_uri: str | None = None
    percent: int = 10


def kserve_files(
    subject: Subject,
    placement: Placement,
    *,
    storage_uri: str | None = None,
    canary: Canary | None = None,
) -> dict[str, str]:
    """Return the manifests by file name.

    Args:
        subject: What is served.
        placement: The runtime's image when there is an address, else the image with the bundle.
        storage_uri: Address from which KServe fetches the bundle.
        canary: A second version beside it.

    Raises:
        InvalidInput: ``export.setting_invalid`` or ``export.canary_unfit``.
    """
    check_placement(placement)
    _require_address(storage_uri)
    if canary is not None:
        _require_canary(canary, placement, storage_uri)
    spec: Manifest = {"predictor": _predictor(subject, placement, storage_uri)}
    if canary is not None:
        image = canary.image or placement.image
        second = _predictor(subject, _with_image(placement, image), canary.storage_uri)
        second = {"name": f"{subject.name}-canary"} | second
        spec["canary"] = [{"trafficPercent": canary.percent, "predictor": second}]
    files = {
        "inference-service.yaml": to_yaml(
            {
                "apiVersion": "serving.kserve.io/v1beta1",
                "kind": "InferenceService",
                "metadata": _service_metadata(subject, placement),
                "spec": spec,
            }
        )
    }
    if storage_uri is not None:
        files["serving-runtime.yaml"] = to_yaml(_runtime(subject, placement))
    return dict(sorted(files.items()))


def _service_metadata(subject: Subject, placement: Placement) -> Manifest:
    found = metadata(subject, placement)
    # Deployments and services of Kubernetes itself: a list of canaries needs it, Knative does not.
    found["annotations"] |= {"serving.kserve.io/deploymentMode": "Standard"}
    return found


def _predictor(subject: Subject, placement: Placement, storage_uri: str | None) -> Manifest:
    least, most = placement.replicas
    scale: Manifest = {"minReplicas": least, "maxReplicas": most, "timeout": 60}
    scale["terminationGracePeriodSeconds"] = GRACE_S
    scale["automountServiceAccountToken"] = False
    scale["securityContext"] = pod_security()
    if storage_uri is None:
        made = container(subject, placement, name=CONTAINER)
        return scale | {"containers": [made], "volumes": volumes(placement)}
    return scale | {
        "model": {
            "modelFormat": {"name": FORMAT},
            "runtime": RUNTIME,
            "protocolVersion": "v2",
            "storageUri": storage_uri,
            "readinessProbe": probe(READY, PORT, period_s=5, failures=2),
        }
    }


def _runtime(subject: Subject, placement: Placement) -> Manifest:
    made = container(subject, placement, name=CONTAINER)
    found: Manifest = {"name": RUNTIME}
    if placement.namespace is not None:
        found["namespace"] = placement.namespace
    found["labels"] = labels(subject, "runtime")
    # The runtime serves any model, so it does not carry the version of one.
    del found["labels"]["app.kubernetes.io/version"]
    return {
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "ServingRuntime",
        "metadata": found,
        "spec": {
            "supportedModelFormats": [{"name": FORMAT, "version": "1", "autoSelect": True}],
            "protocolVersions": ["v1", "v2"],
            "multiModel": False,
            "containers": [made],
            "volumes": volumes(placement),
        },
    }


def _with_image(placement: Placement, image: str) -> Placement:
    return check_placement(
        Placement(
            image=image,
            namespace=placement.namespace,
            replicas=placement.replicas,
            cpu=placement.cpu,
            memory=placement.memory,
            tokens_secret=placement.tokens_secret,
        )
    )


def _require_canary(canary: Canary, placement: Placement, storage_uri: str | None) -> None:
    _require_address(canary.storage_uri)
    is_same = (canary.image or placement.image, canary.storage_uri) == (
        placement.image,
        storage_uri,
    )
    by_address = canary.storage_uri is not None
    if is_same or by_address != (storage_uri is not None) or not 1 <= canary.percent <= 99:
        raise InvalidInput(
            "export.canary_unfit",
            "The canary is not another version with a share of 1 to 99 percent.",
            hint="Name its image where the image holds the bundle, or its address where KServe "
            "fetches bundles.",
        )


def _require_address(address: str | None) -> None:
    if address is not None and not address.startswith(SCHEMES):
        raise InvalidInput(
            "export.setting_invalid",
            f"{address[:80]!r} is no address that KServe fetches from.",
            hint=f"Begin it with one of {', '.join(SCHEMES)}.",
        )
