from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from everloop.core.errors import InvalidInput
from everloop.export.compose import compose_files
from everloop.export.kserve import Canary, kserve_files
from everloop.export.kubernetes import kubernetes_files
from everloop.export.model import Placement, Subject, dns_label
from everloop.export.seldon import seldon1_files, seldon2_files
from tests.parts.validators import Validators
from tests.unit.export.exported import PLACEMENT, parsed, subject

Make = Callable[[Subject, Placement], dict[str, str]]
URI = "s3://models/credit/1.4.0"
FACES: dict[str, Make] = {
    "kubernetes": kubernetes_files,
    "kserve": kserve_files,
    "kserve with an address": lambda s, p: kserve_files(s, p, storage_uri=URI),
    "kserve with a canary": lambda s, p: kserve_files(
        s, p, canary=Canary(image="registry.example.com/team/credit:1.5.0", percent=20)
    ),
    "seldon 1": seldon1_files,
    "seldon 2": lambda s, p: seldon2_files(s, p, storage_uri=URI),
}


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    return subject(tmp_path_factory.mktemp("sealed"))


@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize(
    "change",
    [{}, {"namespace": None, "replicas": (0, 1)}, {"tokens_secret": "credit-tokens"}],
    ids=["as usual", "one or none", "with tokens"],
)
def test_every_manifest_meets_the_schema_of_its_kind(
    sealed: Subject, validators: Validators, face: str, change: dict[str, Any]
) -> None:
    placement = Placement(**{"image": PLACEMENT.image, "namespace": PLACEMENT.namespace} | change)

    files = parsed(FACES[face](sealed, placement))

    wrong = {
        name: problems for name, one in files.items() if (problems := validators.kubernetes(one))
    }
    assert {} == wrong


def _drop(*path: str | int) -> Callable[[Any], None]:
    def drop(value: Any) -> None:
        for key in path[:-1]:
            value = value[key]
        del value[path[-1]]

    return drop


def _put(new: object, *path: str | int) -> Callable[[Any], None]:
    def put(value: Any) -> None:
        for key in path[:-1]:
            value = value[key]
        value[path[-1]] = new

    return put


POD = ("spec", "template", "spec", "containers", 0)
PREDICTOR = ("spec", "predictor")
GRAPH = ("spec", "predictors", 0)


@pytest.mark.parametrize(
    ("face", "file", "spoil"),
    [
        ("kubernetes", "deployment.yaml", _drop("spec", "selector")),
        ("kubernetes", "deployment.yaml", _put("eight", *POD, "ports", 0, "containerPort")),
        ("kubernetes", "deployment.yaml", _put(1, *POD, "imagePullPolicies")),
        ("kubernetes", "service.yaml", _put([{"name": "http"}], "spec", "ports")),
        ("kubernetes", "autoscaler.yaml", _drop("spec", "maxReplicas")),
        ("kubernetes", "network-policy.yaml", _put({}, "spec", "ingres")),
        ("kubernetes", "disruption-budget.yaml", _put([1], "spec", "maxUnavailable")),
        ("kubernetes", "service-monitor.yaml", _drop("spec", "selector")),
        ("kserve", "inference-service.yaml", _put(1, *PREDICTOR, "minReplica")),
        ("kserve", "inference-service.yaml", _drop(*PREDICTOR, "containers", 0, "name")),
        (
            "kserve with an address",
            "inference-service.yaml",
            _drop(*PREDICTOR, "model", "modelFormat"),
        ),
        ("kserve with an address", "serving-runtime.yaml", _drop("spec", "containers")),
        ("kserve with a canary", "inference-service.yaml", _drop("spec", "canary", 0, "predictor")),
        ("seldon 1", "seldon-deployment.yaml", _put("v3", "spec", "protocol")),
        (
            "seldon 1",
            "seldon-deployment.yaml",
            _drop(*GRAPH, "componentSpecs", 0, "spec", "containers"),
        ),
        ("seldon 2", "model.yaml", _drop("spec", "storageUri")),
        ("seldon 2", "server.yaml", _put("x", "spec", "config")),
    ],
)
def test_the_schemas_find_a_manifest_that_is_spoiled(
    sealed: Subject,
    validators: Validators,
    face: str,
    file: str,
    spoil: Callable[[Any], None],
) -> None:
    manifest = copy.deepcopy(parsed(FACES[face](sealed, PLACEMENT))[file])
    spoil(manifest)

    assert [] != validators.kubernetes(manifest)


@pytest.mark.parametrize("face", FACES)
def test_the_same_input_gives_the_same_bytes(sealed: Subject, face: str) -> None:
    assert FACES[face](sealed, PLACEMENT) == FACES[face](sealed, PLACEMENT)


def test_kustomize_takes_every_manifest_but_the_one_that_needs_an_operator(
    sealed: Subject,
) -> None:
    files = parsed(kubernetes_files(sealed, PLACEMENT))

    kept = set(files) - {"kustomization.yaml", "service-monitor.yaml"}
    assert sorted(kept) == files["kustomization.yaml"]["resources"]


def test_service_budget_and_policy_select_the_pods_of_the_deployment(sealed: Subject) -> None:
    files = parsed(kubernetes_files(sealed, PLACEMENT))

    pods = files["deployment.yaml"]["spec"]["template"]["metadata"]["labels"]
    chosen = [
        files["deployment.yaml"]["spec"]["selector"]["matchLabels"],
        files["service.yaml"]["spec"]["selector"],
        files["disruption-budget.yaml"]["spec"]["selector"]["matchLabels"],
        files["network-policy.yaml"]["spec"]["podSelector"]["matchLabels"],
    ]
    assert [] == [labels for labels in chosen if not labels.items() <= pods.items()]
    # The selector of a deployment can never be changed, so no version stands in it.
    assert sealed.bundle.semver not in chosen[0].values()


def test_a_pod_meets_the_restricted_security_standard(sealed: Subject) -> None:
    pod = parsed(kubernetes_files(sealed, PLACEMENT))["deployment.yaml"]["spec"]["template"]["spec"]

    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert {"type": "RuntimeDefault"} == pod["securityContext"]["seccompProfile"]
    assert pod["automountServiceAccountToken"] is False
    assert {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    } == container["securityContext"]


def test_tokens_come_from_the_secret_that_is_named(sealed: Subject) -> None:
    placement = Placement(image=PLACEMENT.image, tokens_secret="credit-tokens")

    pod = parsed(kubernetes_files(sealed, placement))["deployment.yaml"]["spec"]["template"]["spec"]

    (container,) = pod["containers"]
    (file,) = [one["value"] for one in container["env"] if one["name"] == "EVERLOOP_TOKENS_FILE"]
    (mount,) = [one for one in container["volumeMounts"] if one["name"] == "tokens"]
    (volume,) = [one for one in pod["volumes"] if one["name"] == "tokens"]
    assert file == f"{mount['mountPath']}/tokens"
    assert "credit-tokens" == volume["secret"]["secretName"]


def test_a_canary_is_another_version_with_its_share(sealed: Subject) -> None:
    files = parsed(
        kserve_files(
            sealed, PLACEMENT, storage_uri=URI, canary=Canary(storage_uri=f"{URI}-b", percent=5)
        )
    )

    spec = files["inference-service.yaml"]["spec"]
    (canary,) = spec["canary"]
    assert 5 == canary["trafficPercent"]
    assert (URI, f"{URI}-b") == (
        spec["predictor"]["model"]["storageUri"],
        canary["predictor"]["model"]["storageUri"],
    )


@pytest.mark.parametrize(
    ("storage_uri", "canary"),
    [
        (None, Canary(image=PLACEMENT.image)),
        (None, Canary(storage_uri=URI)),
        (URI, Canary(image="registry.example.com/other:1")),
        (URI, Canary(storage_uri=URI)),
        (None, Canary(image="registry.example.com/other:1", percent=100)),
    ],
)
def test_a_canary_that_is_none_is_refused(
    sealed: Subject, storage_uri: str | None, canary: Canary
) -> None:
    with pytest.raises(InvalidInput) as refused:
        kserve_files(sealed, PLACEMENT, storage_uri=storage_uri, canary=canary)

    assert "export.canary_unfit" == refused.value.code


@pytest.mark.parametrize(
    "change",
    [
        {"image": "no spaces"},
        {"image": "UPPER/case"},
        {"image": "a\nb"},
        {"namespace": "Not_A_Label"},
        {"replicas": (3, 2)},
        {"replicas": (0, 0)},
        {"cpu": "many"},
        {"memory": "512MB"},
        {"tokens_secret": "../tokens"},
    ],
)
@pytest.mark.parametrize("face", FACES)
def test_a_setting_that_no_platform_takes_is_refused(
    sealed: Subject, face: str, change: dict[str, Any]
) -> None:
    placement = Placement(**{"image": PLACEMENT.image} | change)

    with pytest.raises(InvalidInput) as refused:
        FACES[face](sealed, placement)

    assert "export.setting_invalid" == refused.value.code


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("credit", "credit"),
        ("Credit_Risk.v2", "credit-risk-v2"),
        ("7days", "model-7days"),
        ("ß", "model"),
        ("a" * 100, "a" * 50),
        ("a" * 49 + "_b", "a" * 49),
    ],
)
def test_any_name_becomes_a_label_that_platforms_take(name: str, label: str) -> None:
    assert label == dns_label(name)


@pytest.mark.parametrize("build", [None, "../image"])
def test_the_compose_file_meets_the_specification(
    sealed: Subject, validators: Validators, build: str | None
) -> None:
    (project,) = parsed(compose_files(sealed, PLACEMENT, build=build)).values()

    assert [] == validators.compose(project)


def test_the_compose_schema_finds_a_file_that_is_spoiled(
    sealed: Subject, validators: Validators
) -> None:
    (project,) = parsed(compose_files(sealed, PLACEMENT)).values()
    project["services"][sealed.name]["read_onlyy"] = True

    assert [] != validators.compose(project)


@pytest.mark.parametrize(
    ("cpu", "memory", "expected"),
    [
        ("500m", "512Mi", {"cpus": "0.5", "memory": "512m"}),
        ("2", "1Gi", {"cpus": "2", "memory": "1g"}),
        ("1", "1G", {"cpus": "1", "memory": "1000000000b"}),
    ],
)
def test_quantities_are_written_as_compose_reads_them(
    sealed: Subject, cpu: str, memory: str, expected: dict[str, str]
) -> None:
    made = Placement(image=PLACEMENT.image, cpu=cpu, memory=memory)

    (project,) = parsed(compose_files(sealed, made)).values()

    assert expected == project["services"][sealed.name]["deploy"]["resources"]["limits"]
