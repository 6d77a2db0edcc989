"""Which versions a gate measures, and with which a deployment answers."""

from __future__ import annotations

import msgspec
import pytest

import everloop.gate.verbs  # noqa: F401 -- declares gate.evaluate
from everloop.app.recording import Record, record_model
from everloop.core.errors import GateFailed, InvalidInput, UnsafeArtifact
from everloop.gate.verbs import EvaluateGate
from everloop.kernel.safe_load import SAFE_FORMATS, LoadPolicy
from everloop.registry.evidence import GateReport
from everloop.registry.formats import require_served
from everloop.registry.model import ModelVersion
from everloop.registry.queries import ResolveModel
from everloop.release.queries import DeploymentView, ReleaseView
from everloop.release.verbs import CreateDeployment, StartRelease
from tests.kit import World, world
from tests.unit.registry import zoo
from tests.unit.registry.test_pyfunc import total
from tests.unit.registry.zoo import SEVERAL_NUMBERS


def deployed(here: World) -> None:
    ask = CreateDeployment(name="kinds", model="kinds")
    here.owner.perform("deployment.create", ask, DeploymentView)


@pytest.fixture
def several() -> World:
    here = world()
    rows = zoo.TABLE.select(["a", "b", "c"])
    record_model(here.owner, Record(name="kinds"), SEVERAL_NUMBERS[0].make(0), rows)
    deployed(here)
    return here


def test_a_gate_says_that_it_measures_one_answer_a_row_or_one_a_class() -> None:
    here = world()
    rows = zoo.TABLE.select(["a", "b", "c"])
    record_model(
        here.owner, Record(name="kinds", task="regression"), SEVERAL_NUMBERS[3].make(0), rows
    )

    with pytest.raises(InvalidInput) as refused:
        here.server.perform("gate.evaluate", EvaluateGate(version="kinds@1"), GateReport)

    assert "model.outputs_unsupported" == refused.value.code
    assert "answers 3 numbers a row, and the gate takes one" in refused.value.message


def test_a_classifier_of_several_classes_is_released_like_another_model_once_its_gate_passed(
    several: World,
) -> None:
    ask = StartRelease(deployment="kinds", version="kinds@1")

    with pytest.raises(GateFailed) as refused:
        several.owner.perform("release.start", ask, ReleaseView)

    assert "gate.missing" == refused.value.code


def test_a_deployment_answers_with_one_number_a_row_or_one_a_class() -> None:
    here = world()
    rows = zoo.TABLE.select(["a", "b", "c"])
    record_model(
        here.owner, Record(name="kinds", task="regression"), SEVERAL_NUMBERS[3].make(0), rows
    )
    deployed(here)
    ask = StartRelease(deployment="kinds", version="kinds@1")

    with pytest.raises(InvalidInput) as refused:
        here.owner.perform("release.start", ask, ReleaseView)

    assert "model.outputs_unsupported" == refused.value.code


def test_a_function_is_released_like_another_model_once_its_gate_passed() -> None:
    here = world(policy=LoadPolicy(formats=SAFE_FORMATS | {"pyfunc"}))
    told = Record(name="kinds", waiver="Tried out.")
    record_model(here.owner, told, total, zoo.TABLE.select(["a", "b"]))
    deployed(here)

    with pytest.raises(GateFailed) as refused:
        here.owner.perform(
            "release.start", StartRelease(deployment="kinds", version="kinds@1"), ReleaseView
        )

    assert "gate.missing" == refused.value.code


def test_a_function_that_nobody_waived_is_never_served() -> None:
    here = world(policy=LoadPolicy(formats=SAFE_FORMATS | {"pyfunc"}))
    told = Record(name="kinds", waiver="Tried out.")
    record_model(here.owner, told, total, zoo.TABLE.select(["a", "b"]))
    version = here.owner.perform("model.resolve", ResolveModel(ref="kinds@1"), ModelVersion)

    with pytest.raises(UnsafeArtifact) as refused:
        require_served(msgspec.structs.replace(version, waiver=""))

    assert "artifact.not_served" == refused.value.code
