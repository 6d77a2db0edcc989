"""A model that a stock MLflow client logged and registered passes our gate and is served by us."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np
import pytest

from everloop.app.bundles import seal_bundle
from everloop.core.errors import Conflict, EverloopError
from everloop.core.ids import Id
from everloop.core.ports import where
from everloop.data.snapshot import commit_table
from everloop.gate.verbs import EvaluateGate, WaiveGate
from everloop.govern.cards import CardView, ShowCard
from everloop.govern.lineage import ShowLineage
from everloop.govern.model import Lineage
from everloop.registry.evidence import EVALUATOR, GateReport, Waiver
from everloop.registry.lifecycle import NameVersion
from everloop.registry.model import ModelVersion, VersionNotes
from everloop.registry.queries import ResolveModel
from everloop.release.model import Deployment
from everloop.release.queries import DeploymentView, ReleaseView
from everloop.release.verbs import CreateDeployment, StartRelease
from everloop.serve.bundle import open_bundle
from tests.story.test_gate import HOLDOUT, INPUTS, TRAIN, fit, work_in
from tests.unit.interop.mlflow_wire import Wire, wire

SIGNATURE = """\
flavors:
  lightgbm:
    data: model.lgb
signature:
  inputs: '[{"type": "long", "name": "hour", "required": true},
    {"type": "double", "name": "temperature", "required": true},
    {"type": "long", "name": "workday", "required": true}]'
  outputs: '[{"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1]}}]'
"""


def text_of(booster: lgb.Booster) -> bytes:
    """Return a model's text with the names of its inputs, as a data frame would have given them."""
    text: str = booster.model_to_string()
    plain = " ".join(f"Column_{place}" for place in range(len(INPUTS)))
    return text.replace(plain, " ".join(INPUTS)).encode()


GOOD = fit(TRAIN, inputs=INPUTS)
FILES = {"MLmodel": SIGNATURE.encode(), "model.lgb": text_of(GOOD)}


@dataclass
class Tale:
    """A world with the data committed, reached through MLflow's interface."""

    wire: Wire

    def register(self, files: dict[str, bytes], *, holdout: bool = True) -> ModelVersion:
        tags: list[dict[str, str]] = [
            {"key": "everloop.dataset", "value": "train@1"},
            {"key": "everloop.target", "value": "count"},
        ]
        if holdout:
            tags.append({"key": "everloop.holdout", "value": "kept@1"})
        made: Any = self.wire.registered("bike", files, tags=tags)
        return self.find(f"bike@{made['version']}")

    def find(self, ref: str) -> ModelVersion:
        found: ModelVersion = self.owner.perform(
            "model.resolve", ResolveModel(ref=ref), ModelVersion
        )
        return found

    @property
    def owner(self) -> Any:
        return self.wire.here.owner

    def judge(self, version: ModelVersion) -> GateReport:
        report: GateReport = self.owner.perform(
            "gate.evaluate", EvaluateGate(version=version.id), GateReport
        )
        return report

    def release(self, version: ModelVersion) -> None:
        made = CreateDeployment(name="bike", model="bike")
        self.owner.perform("deployment.create", made, DeploymentView)
        start = StartRelease(deployment="bike", version=version.id)
        self.owner.perform("release.start", start, ReleaseView)

    def seal(self, version: ModelVersion, folder: Path) -> None:
        with self.wire.here.kernel.store.write() as tx:
            work = work_in(self.wire.here, tx)
            deployment = work.select(Deployment, *where(name="bike"))[0]
            seal_bundle(work, deployment, Id(version.id), folder)


@pytest.fixture
def tale() -> Iterator[Tale]:
    with wire() as made:
        made.here.configure({"models": {"bike": {"gate": {"block": "day"}}}})
        commit_table(made.here.owner, "train", TRAIN)
        commit_table(made.here.owner, "kept", HOLDOUT)
        yield Tale(made)


def test_it_passes_the_gate_is_released_and_answers_from_a_sealed_bundle(
    tale: Tale, tmp_path: Path
) -> None:
    version = tale.register(FILES)

    report = tale.judge(version)
    tale.release(version)
    tale.seal(version, tmp_path / "bundle")

    assert report.passed, [check.summary for check in report.checks]
    key = tale.wire.here.kernel.services.signers[EVALUATOR].public_key
    loaded = open_bundle(tmp_path / "bundle", key)
    rows = np.column_stack([HOLDOUT[name].to_numpy() for name in INPUTS]).astype(float)
    np.testing.assert_array_equal(GOOD.predict(rows[:50]), loaded.model(rows[:50]))
    assert len(loaded.bundle.golden) == 20


def test_its_lineage_leads_to_the_run_the_logged_model_and_the_data(tale: Tale) -> None:
    version = tale.register(FILES)

    shown = tale.owner.perform("lineage.show", ShowLineage(ref="model:bike@1"), Lineage)

    told = {(edge.relation, edge.target.partition(":")[0]) for edge in shown.edges}
    assert {
        ("sealed_from", "logged_model"),
        ("trained_by", "run"),
        ("trained_on", "dataset_version"),
        ("held_out", "dataset_version"),
    } <= told
    assert () == shown.broken
    assert version.run is not None


def test_what_answers_or_may_have_to_is_not_deleted(tale: Tale) -> None:
    first = tale.register(FILES)
    second = tale.register(FILES | {"note": b"another folder"})
    tale.judge(first)
    tale.release(first)

    with pytest.raises(Conflict) as refused:
        tale.owner.perform("version.delete", NameVersion(version=first.id), VersionNotes)
    gone = tale.owner.perform("version.delete", NameVersion(version=second.id), VersionNotes)

    assert "model_version.in_use" == refused.value.code
    assert [
        "The protected alias 'production' points at bike@1.0.0",
        "The deployment 'bike' answers with bike@1.0.0",
    ] == refused.value.context["holds"]
    assert gone.deleted_at is not None


@pytest.mark.parametrize(
    ("files", "code"),
    [
        ({"MLmodel": b"flavors: {}\n", "model.pkl": b"\x80"}, "signature.unknown"),
        (
            {"MLmodel": SIGNATURE.replace("model.lgb", "model.pkl").encode(), "model.pkl": b"\x80"},
            "model.not_servable",
        ),
    ],
)
def test_a_folder_that_cannot_be_served_is_kept_and_never_released(
    tale: Tale, files: dict[str, bytes], code: str
) -> None:
    version = tale.register(files)

    report = tale.judge(version)
    tale.owner.perform("gate.waive", WaiveGate(version=version.id, why="for a test"), Waiver)
    with pytest.raises(EverloopError) as refused:
        tale.release(version)
    card = tale.owner.perform("card.show", ShowCard(ref=version.id), CardView)

    assert not report.passed
    assert code == refused.value.code
    assert "bike" in card.markdown
