"""From one prediction to everything that made it, with each step verified."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from everloop.core.errors import Denied, InvalidInput, NotFound
from everloop.govern.lineage import ShowLineage, Towards
from everloop.govern.model import Lineage, Node
from everloop.kernel.authz import Role
from everloop.kernel.bootstrap import OWNER, local_caller
from everloop.kernel.performer import LocalPerformer
from everloop.kernel.unit_of_work import View
from everloop.release.queries import DeploymentView, ReleaseView, find_admitting
from everloop.release.verbs import CreateDeployment, StartRelease
from tests.story.governed import COMMIT, SOURCE, Tale, tell


@pytest.fixture(scope="module")
def tale(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tale]:
    told = tell(tmp_path_factory.mktemp("tale") / "everloop.db")
    yield told
    told.world.kernel.store.close()


def show(tale: Tale, ref: str, direction: Towards = Towards.UP) -> Lineage:
    return tale.owner.perform("lineage.show", ShowLineage(ref=ref, direction=direction), Lineage)


def kinds(found: Lineage) -> set[str]:
    return {node.ref.partition(":")[0] for node in found.nodes}


def the(found: Lineage, kind: str) -> Node:
    return next(node for node in found.nodes if node.ref.startswith(f"{kind}:"))


def test_a_prediction_leads_to_everything_that_made_it(tale: Tale) -> None:
    found = show(tale, f"prediction:{tale.predictions[0]}")

    refs = {node.ref for node in found.nodes}
    assert {
        f"prediction:{tale.predictions[0]}",
        f"model_version:{tale.version.id}",
        f"run:{tale.run}",
        f"dataset_version:{tale.training.id}",
        f"source:{SOURCE}",
        f"commit:{COMMIT}",
        f"gate_report:{tale.report.id}",
    } <= refs
    assert {"prediction_segment", "step_run", "approval", "release", "blob"} <= kinds(found)
    assert () == found.broken
    assert not found.truncated
    assert ["ann"] == [consent.by for consent in found.consents if consent.counts]


def test_a_prediction_shows_the_one_release_that_let_it_through(tale: Tale) -> None:
    mine = {node.ref for node in show(tale, f"prediction:{tale.predictions[0]}").nodes}
    other = tale.owner.perform(
        "deployment.create", CreateDeployment(name="other", model="m"), DeploymentView
    ).deployment
    elsewhere = tale.owner.perform(
        "release.start", StartRelease(deployment="other", version=tale.version.id), ReleaseView
    )

    found = show(tale, f"prediction:{tale.predictions[0]}")

    assert mine == {node.ref for node in found.nodes}
    assert 1 == len([ref for ref in mine if ref.startswith("release:")])
    assert () == found.broken
    version = show(tale, f"model_version:{tale.version.id}")
    assert f"release:{elsewhere.release.id}" in {node.ref for node in version.nodes}
    with tale.world.kernel.store.read() as tx:
        view = View(
            tx, local_caller(tale.world.kernel, OWNER), other.project, tale.world.kernel.services
        )
        admitted = find_admitting(view, other.id, tale.version.id, elsewhere.release.epoch)
        before = find_admitting(view, other.id, tale.version.id, elsewhere.release.epoch - 1)
    assert (elsewhere.release, None) == (admitted, before)


def test_every_node_with_a_record_is_verified_and_has_its_entries(tale: Tale) -> None:
    found = show(tale, f"prediction:{tale.predictions[-1]}")

    numbers = {line.index for line in found.entries}
    for node in found.nodes:
        if node.ref.partition(":")[0] not in {"source", "commit", "blob"}:
            assert node.verified, node
            assert node.entries, node
            assert set(node.entries) <= numbers
    assert all(edge.verified for edge in found.edges)
    assert {"release.start", "gate.approve", "model.register", "data.commit"} <= {
        line.action for line in found.entries
    }
    assert "owner" in {line.actor_name for line in found.entries}


def test_a_prediction_shows_its_answer_its_label_and_its_proof(tale: Tale) -> None:
    node = show(tale, f"prediction:{tale.predictions[1]}").nodes[0]

    assert "12.5" == node.facts["output"]
    assert "12.0" == node.facts["label"]
    assert "0.5" == node.facts["input a"]
    assert "row 1 of 6" in node.facts["proof"]


@pytest.mark.parametrize("ref", ["model:m@production", "model:m@1", "model:m@1.0.0", "model:m"])
def test_a_model_is_found_by_any_of_its_names(tale: Tale, ref: str) -> None:
    assert f"model_version:{tale.version.id}" == show(tale, ref).start


def test_what_came_of_a_source_is_found_on_the_way_down(tale: Tale) -> None:
    found = show(tale, f"source:{SOURCE}", Towards.DOWN)

    assert f"model_version:{tale.version.id}" in {node.ref for node in found.nodes}
    assert "prediction_segment" in kinds(found)
    assert () == found.broken


def test_both_directions_hold_origins_and_consequences(tale: Tale) -> None:
    found = show(tale, "model:m", Towards.BOTH)

    assert {"run", "dataset_version", "prediction_segment", "feedback_batch"} <= kinds(found)


def test_the_limit_is_told(tale: Tale) -> None:
    ask = ShowLineage(ref="model:m", limit=3)

    found = tale.owner.perform("lineage.show", ask, Lineage)

    assert found.truncated
    assert 3 == len(found.nodes)


@pytest.mark.parametrize("kind", ["dataset", "run", "deployment", "release"])
def test_other_things_have_a_lineage_too(tale: Tale, kind: str) -> None:
    release = the(show(tale, "model:m"), "release").ref
    ref = {
        "dataset": "dataset:stream@1",
        "run": f"run:{tale.run}",
        "deployment": "deployment:m",
        "release": release,
    }[kind]

    found = show(tale, ref)

    assert found.nodes[0].verified
    assert () == found.broken


@pytest.mark.parametrize(
    ("ref", "error"),
    [
        ("model:nobody", NotFound),
        ("run:0191d7a1-0000-7000-8000-000000000000", NotFound),
        ("prediction:0191d7a1-0000-7000-8000-000000000000", NotFound),
        ("commit:0000", NotFound),
        ("ledger_entry:000000000001", NotFound),
        ("token:0191d7a1-0000-7000-8000-000000000000", NotFound),
        ("nonsense", InvalidInput),
        ("planet:mars", InvalidInput),
        ("actor:0191d7a1-0000-7000-8000-000000000000", InvalidInput),
    ],
)
def test_an_unknown_ref_is_refused_with_a_hint(
    tale: Tale, ref: str, error: type[NotFound | InvalidInput]
) -> None:
    with pytest.raises(error) as refused:
        show(tale, ref)

    assert refused.value.hint


def test_another_project_sees_nothing_of_it(tale: Tale) -> None:
    tale.world.project("other")
    stranger = tale.world.person("eve", Role.CONTRIBUTOR, project="other")

    with pytest.raises(NotFound):
        stranger.perform("lineage.show", ShowLineage(ref=f"run:{tale.run}"), Lineage)


def test_lineage_needs_a_role(tale: Tale) -> None:
    tale.world.project("closed")
    tale.world.person("mallory", Role.VIEWER, project="closed")
    caller = tale.world.people["mallory"]
    outsider = LocalPerformer(tale.world.kernel, caller, "demo")

    with pytest.raises(Denied):
        outsider.perform("lineage.show", ShowLineage(ref="model:m"), Lineage)


def test_twenty_predictions_are_explained_in_seconds(tale: Tale) -> None:
    begin = time.perf_counter()

    for number in range(20):
        show(tale, f"prediction:{tale.predictions[number % len(tale.predictions)]}")

    assert time.perf_counter() - begin < 4
