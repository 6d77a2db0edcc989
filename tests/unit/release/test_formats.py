"""Which versions a gate measures and a deployment answers with: one number a row, and no code."""

from __future__ import annotations

import pytest

import everloop.gate.verbs  # noqa: F401 -- declares gate.evaluate
from everloop.app.recording import Record, record_model
from everloop.core.errors import InvalidInput, UnsafeArtifact
from everloop.gate.verbs import EvaluateGate
from everloop.kernel.safe_load import SAFE_FORMATS, LoadPolicy
from everloop.registry.evidence import GateReport
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


def test_a_gate_says_that_it_measures_one_answer_a_row(several: World) -> None:
    with pytest.raises(InvalidInput) as refused:
        several.server.perform("gate.evaluate", EvaluateGate(version="kinds@1"), GateReport)

    assert "model.outputs_unsupported" == refused.value.code
    assert "answers 3 numbers a row, and the gate takes one" in refused.value.message


def test_a_deployment_answers_with_one_number_a_row(several: World) -> None:
    ask = StartRelease(deployment="kinds", version="kinds@1")

    with pytest.raises(InvalidInput) as refused:
        several.owner.perform("release.start", ask, ReleaseView)

    assert "model.outputs_unsupported" == refused.value.code


def test_a_function_is_never_released() -> None:
    here = world(policy=LoadPolicy(formats=SAFE_FORMATS | {"pyfunc"}))
    told = Record(name="kinds", waiver="Tried out.")
    record_model(here.owner, told, total, zoo.TABLE.select(["a", "b"]))
    deployed(here)

    with pytest.raises(UnsafeArtifact) as refused:
        here.owner.perform(
            "release.start", StartRelease(deployment="kinds", version="kinds@1"), ReleaseView
        )

    assert "artifact.not_served" == refused.value.code
