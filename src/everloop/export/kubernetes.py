"""Plain Kubernetes: a deployment, its service, scaling, disruption budget and network policy."""

from __future__ import annotations

from typing import Final

from everloop.export.manifests import (
    Manifest,
    container,
    labels,
    metadata,
    origin,
    pod,
    selector,
    to_yaml,
)
from everloop.export.model import Placement, Subject, check_placement

TARGET_CPU_PERCENT: Final = 70
# Where Prometheus runs by the charts in common use; change it where yours runs elsewhere.
MONITORING: Final = "monitoring"


def kubernetes_files(subject: Subject, placement: Placement) -> dict[str, str]:
    """Return the manifests by file name; ``kubectl apply -k`` takes the folder.

    The ServiceMonitor stands beside them and is not part of the kustomization, since applying it
    needs the operator of Prometheus.

    Raises:
        InvalidInput: ``export.setting_invalid``.
    """
    check_placement(placement)
    made = {
        "deployment.yaml": _deployment(subject, placement),
        "service.yaml": _service(subject, placement),
        "autoscaler.yaml": _autoscaler(subject, placement),
        "disruption-budget.yaml": _disruption_budget(subject, placement),
        "network-policy.yaml": _network_policy(subject, placement),
    }
    files = {name: to_yaml(manifest) for name, manifest in made.items()}
    kustomization: Manifest = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": sorted(made),
    }
    files["kustomization.yaml"] = to_yaml(kustomization)
    files["service-monitor.yaml"] = to_yaml(_service_monitor(subject, placement))
    return dict(sorted(files.items()))


def _deployment(subject: Subject, placement: Placement) -> Manifest:
    spec = pod([container(subject, placement)], placement)
    spec["topologySpreadConstraints"] = [
        {
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": selector(subject)},
        }
    ]
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(subject, placement),
        "spec": {
            # No number of replicas: the autoscaler sets it, and applying again must not undo that.
            "revisionHistoryLimit": 5,
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1},
            },
            "selector": {"matchLabels": selector(subject)},
            "template": {
                "metadata": {"labels": labels(subject), "annotations": origin(subject)},
                "spec": spec,
            },
        },
    }


def _service(subject: Subject, placement: Placement) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(subject, placement),
        "spec": {
            "type": "ClusterIP",
            "selector": selector(subject),
            "ports": [{"name": "http", "port": 80, "targetPort": "http", "appProtocol": "http"}],
        },
    }


def _autoscaler(subject: Subject, placement: Placement) -> Manifest:
    least, most = placement.replicas
    target = {"type": "Utilization", "averageUtilization": TARGET_CPU_PERCENT}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": metadata(subject, placement),
        "spec": {
            "scaleTargetRef": {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "name": subject.name,
            },
            "minReplicas": max(least, 1),
            "maxReplicas": most,
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}],
        },
    }


def _disruption_budget(subject: Subject, placement: Placement) -> Manifest:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(subject, placement),
        "spec": {
            "maxUnavailable": 1,
            "selector": {"matchLabels": selector(subject)},
            # A pod that never got ready must not keep a node from being emptied.
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }


def _network_policy(subject: Subject, placement: Placement) -> Manifest:
    from_monitoring = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": MONITORING}}
    }
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(subject, placement),
        "spec": {
            "podSelector": {"matchLabels": selector(subject)},
            "policyTypes": ["Ingress", "Egress"],
            # Pods of the same namespace may ask, and Prometheus; the server itself calls nobody.
            "ingress": [
                {
                    "from": [{"podSelector": {}}, from_monitoring],
                    "ports": [{"port": "http", "protocol": "TCP"}],
                }
            ],
            "egress": [],
        },
    }


def _service_monitor(subject: Subject, placement: Placement) -> Manifest:
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "ServiceMonitor",
        "metadata": metadata(subject, placement),
        "spec": {
            "selector": {"matchLabels": selector(subject)},
            "endpoints": [{"port": "http", "path": "/metrics", "interval": "15s"}],
        },
    }
