"""Registering versions, their semantic versions, and aliases."""

from __future__ import annotations

import lightgbm as lgb
import numpy as np
import pyarrow as pa
import pytest

from everloop.core.errors import Denied, InvalidInput, NotFound
from everloop.kernel.authz import Role
from everloop.registry.client import register
from everloop.registry.formats import open_version, save_model
from everloop.registry.model import AliasMove, ModelVersion
from everloop.registry.queries import (
    AliasHistory,
    AliasMoveList,
    ListModels,
    ListModelVersions,
    ModelList,
    ModelVersionList,
    ModelView,
    ResolveModel,
    ShowModel,
)
from everloop.registry.signature import Signature, infer_signature, to_matrix
from everloop.registry.verbs import MoveAlias
from tests.kit import World, world

RNG = np.random.default_rng(7)
X = RNG.normal(size=(300, 2))
TABLE = pa.table({"a": X[:, 0], "b": X[:, 1], "y": X[:, 0] * 2 + X[:, 1]})
SIGNATURE = infer_signature(TABLE, ["a", "b"], "y", "regression")


def booster(trees: int = 5) -> lgb.Booster:
    data = lgb.Dataset(X, TABLE["y"].to_numpy())
    settings = {"verbose": -1, "num_threads": 1, "num_leaves": 4, "objective": "regression"}
    return lgb.train(settings, data, trees)


def add(here: World, trees: int = 5, signature: Signature = SIGNATURE) -> ModelVersion:
    return register(here.owner, "bike", booster(trees), signature=signature, examples=TABLE)


def test_the_first_version_is_one_and_its_predictions_are_those_of_the_library() -> None:
    here = world()

    version = add(here)

    assert (version.version, version.number, version.bump) == ("1.0.0", 1, "first")
    predictor = open_version(here.blobs, version, here.kernel.services.policy)
    np.testing.assert_array_equal(
        predictor.predict(to_matrix(SIGNATURE, TABLE)), booster().predict(X)
    )


def test_the_same_artifact_again_is_the_same_version() -> None:
    here = world()

    assert add(here) == add(here)


def test_other_predictions_make_a_minor_version() -> None:
    here = world()
    add(here)

    version = add(here, trees=6)

    assert (version.version, version.bump) == ("1.1.0", "minor")
    assert "150 of 150 probe rows" in version.bump_reason


def test_the_same_predictions_from_other_bytes_make_a_patch_version() -> None:
    here = world()
    add(here)
    wider = infer_signature(TABLE.slice(0, 200), ["a", "b"], "y", "regression")

    version = add(here, signature=wider)

    assert (version.version, version.bump) == ("1.0.1", "patch")


def test_a_removed_input_makes_a_major_version() -> None:
    here = world()
    add(here)
    data = lgb.Dataset(X[:, :1], TABLE["y"].to_numpy())
    small = lgb.train({"verbose": -1, "num_threads": 1, "num_leaves": 4}, data, 3)
    signature = infer_signature(TABLE, ["a"], "y", "regression")

    version = register(here.owner, "bike", small, signature=signature, examples=TABLE)

    assert (version.version, version.bump) == ("2.0.0", "major")
    assert "input 'b' was removed" in version.bump_reason


def test_a_bump_by_hand_needs_a_reason_and_keeps_both() -> None:
    here = world()
    add(here)

    with pytest.raises(InvalidInput):
        register(here.owner, "bike", booster(6), signature=SIGNATURE, bump="major")
    version = register(
        here.owner, "bike", booster(6), signature=SIGNATURE, bump="major", bump_reason="New owner."
    )

    assert version.version == "2.0.0"
    assert version.bump_reason.startswith("By hand: New owner.")
    assert "The rule said minor" in version.bump_reason


def test_a_signature_of_other_width_than_the_model_is_refused() -> None:
    here = world()
    signature = infer_signature(TABLE, ["a"], "y", "regression")

    with pytest.raises(InvalidInput) as refused:
        register(here.owner, "bike", booster(), signature=signature)

    assert refused.value.code == "model.signature_mismatch"


def test_a_version_names_only_origins_that_exist() -> None:
    here = world()
    absent = add(here).id

    with pytest.raises(NotFound) as refused:
        register(here.owner, "bike", booster(9), signature=SIGNATURE, holdout=absent)

    assert refused.value.code == "dataset_version.not_found"


def move(here: World, alias: str, version: str | None, why: str = "tried it") -> AliasMove:
    ask = MoveAlias(model="bike", alias=alias, version=version, why=why)
    return here.owner.perform("model.alias", ask, AliasMove)


def resolve(here: World, ref: str, as_of: str | None = None) -> ModelVersion:
    return here.owner.perform("model.resolve", ResolveModel(ref=ref, as_of=as_of), ModelVersion)


def test_an_alias_remembers_who_when_why_and_what_was_before() -> None:
    here = world()
    first, second = add(here), add(here, trees=6)
    move(here, "candidate", "1.0.0")
    here.clock.push(days=1)
    move(here, "candidate", "2", why="better at night")

    asked = AliasHistory(name="bike", alias="candidate")
    history = here.owner.perform("model.alias_history", asked, AliasMoveList).items

    assert [(item.version, item.before) for item in history] == [
        ("1.1.0", "1.0.0"),
        ("1.0.0", None),
    ]
    assert history[0].move.why == "better at night"
    assert resolve(here, "bike@candidate") == second
    assert resolve(here, "bike@candidate", as_of="2026-01-01T12:00:00Z") == first


def test_an_alias_taken_away_names_nothing() -> None:
    here = world()
    add(here)
    move(here, "candidate", "1")
    move(here, "candidate", None)

    with pytest.raises(NotFound):
        resolve(here, "bike@candidate")


def test_an_alias_moved_to_where_it_is_records_nothing() -> None:
    here = world()
    add(here)

    assert move(here, "candidate", "1") == move(here, "candidate", "1")


@pytest.mark.parametrize("alias", ["1.0.0", "3", "v2", "latest", "../x", ""])
def test_an_alias_cannot_look_like_a_version(alias: str) -> None:
    here = world()
    add(here)

    with pytest.raises(InvalidInput):
        move(here, alias, "1")


def test_production_moves_only_with_a_release() -> None:
    here = world()
    add(here)

    with pytest.raises(Denied) as refused:
        move(here, "production", "1")

    assert refused.value.code == "alias.reserved"


def test_a_contributor_registers_but_moves_no_protected_alias() -> None:
    here = world()
    here.configure({"registry": {"protected_aliases": ["candidate"]}})
    add(here)
    ann = here.person("ann", Role.CONTRIBUTOR)

    version = register(ann, "bike", booster(7), signature=SIGNATURE)

    assert version.version == "1.1.0"
    with pytest.raises(Denied):
        ann.perform(
            "model.alias",
            MoveAlias(model="bike", alias="candidate", version="1", why="x"),
            AliasMove,
        )


def test_lists_come_in_pages() -> None:
    here = world()
    add(here)
    newest = add(here, trees=6)

    page = here.owner.perform(
        "model.versions", ListModelVersions(name="bike", limit=1), ModelVersionList
    )
    rest = here.owner.perform(
        "model.versions", ListModelVersions(name="bike", limit=1, after=page.next), ModelVersionList
    )

    assert page.items == (newest,)
    assert [item.version for item in rest.items] == ["1.0.0"]
    assert rest.next is None
    models = here.owner.perform("model.list", ListModels(), ModelList)
    assert [(item.name, item.latest, item.production) for item in models.items] == [
        ("bike", "1.1.0", None)
    ]
    shown = here.owner.perform("model.show", ShowModel(ref="model:bike@1.0.0"), ModelView)
    assert shown.version.number == 1


def test_an_object_without_a_safe_format_is_refused() -> None:
    with pytest.raises(InvalidInput) as refused:
        save_model(object())

    assert refused.value.code == "model.type_unsupported"


def test_a_signature_with_the_models_inputs_in_another_order_is_refused() -> None:
    here = world()
    data = lgb.Dataset(X, TABLE["y"].to_numpy(), feature_name=["a", "b"])
    named = lgb.train({"verbose": -1, "num_threads": 1, "num_leaves": 4}, data, 2)
    swapped = infer_signature(TABLE, ["b", "a"], "y", "regression")

    with pytest.raises(InvalidInput) as refused:
        register(here.owner, "bike", named, signature=swapped)

    assert refused.value.code == "model.inputs_reordered"
    assert register(here.owner, "bike", named, signature=SIGNATURE).version == "1.0.0"
