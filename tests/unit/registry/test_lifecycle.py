"""What may change about models and versions, the trash, and the past of aliases."""

from __future__ import annotations

import lightgbm as lgb
import numpy as np
import pyarrow as pa
import pytest

from everloop.core.errors import Conflict, Denied, InvalidInput, NotFound
from everloop.govern.trash import Purged, PurgeTrash
from everloop.kernel.authz import Role
from everloop.registry.client import register
from everloop.registry.lifecycle import (
    CreateModel,
    NameModel,
    NameVersion,
    RenameModel,
    StageVersion,
    UpdateModel,
    UpdateVersion,
)
from everloop.registry.model import AliasMove, Model, ModelVersion, VersionNotes
from everloop.registry.queries import (
    AliasesAt,
    AliasStandings,
    ListModels,
    ListModelVersions,
    ModelList,
    ModelVersionList,
    ModelView,
    ResolveModel,
    ShowModel,
)
from everloop.registry.search import FoundVersions, SearchVersions
from everloop.registry.signature import infer_signature
from everloop.registry.verbs import MoveAlias
from tests.kit import World, world

RNG = np.random.default_rng(11)
X = RNG.normal(size=(60, 2))
TABLE = pa.table({"a": X[:, 0], "b": X[:, 1], "y": X[:, 0] - X[:, 1]})
SIGNATURE = infer_signature(TABLE, ["a", "b"], "y", "regression")
SETTINGS = {"verbose": -1, "num_threads": 1, "num_leaves": 3, "min_data_in_leaf": 5}


def add(here: World, trees: int, name: str = "bike") -> ModelVersion:
    booster = lgb.train(SETTINGS, lgb.Dataset(X, TABLE["y"].to_numpy()), trees)
    return register(here.owner, name, booster, signature=SIGNATURE)


def create(here: World, name: str = "bike", **told: object) -> Model:
    return here.owner.perform("model.create", CreateModel(name=name, **told), Model)  # type: ignore[arg-type]


def delete_model(here: World, name: str = "bike") -> Model:
    return here.owner.perform("model.delete", NameModel(name=name), Model)


def delete_version(here: World, ref: str) -> VersionNotes:
    return here.owner.perform("version.delete", NameVersion(version=ref), VersionNotes)


def resolve(here: World, ref: str, as_of: str | None = None) -> ModelVersion:
    return here.owner.perform("model.resolve", ResolveModel(ref=ref, as_of=as_of), ModelVersion)


def move(here: World, alias: str, version: str | None, why: str = "tried it") -> AliasMove:
    ask = MoveAlias(model="bike", alias=alias, version=version, why=why)
    return here.owner.perform("model.alias", ask, AliasMove)


def numbers(here: World, deleted: str = "active") -> list[int]:
    ask = ListModelVersions(name="bike", deleted=deleted)  # type: ignore[arg-type]
    return [row.number for row in here.owner.perform("model.versions", ask, ModelVersionList).items]


def test_a_model_is_made_before_its_first_version_and_keeps_what_was_said() -> None:
    here = world()
    made = create(here, owner="ann", licence="MIT", intended_use="Planning.", tags={"team": "a"})

    version = add(here, 1)

    shown = here.owner.perform("model.show", ShowModel(ref="bike@1"), ModelView)
    assert (made.id, "ann", "MIT", {"team": "a"}) == (
        shown.model.id,
        shown.model.owner,
        shown.model.licence,
        shown.model.tags,
    )
    assert (1, "1.0.0") == (version.number, version.version)


def test_a_model_is_made_once() -> None:
    here = world()
    create(here)

    with pytest.raises(Conflict) as refused:
        create(here)

    assert "model.exists" == refused.value.code


def test_what_is_said_about_a_model_changes_and_the_rest_stays() -> None:
    here = world()
    create(here, description="old", tags={"a": "1", "b": "2"})

    changed = here.owner.perform(
        "model.update",
        UpdateModel(name="bike", owner="bob", tags={"c": "3"}, untag=("a",)),
        Model,
    )

    assert ("old", "bob", {"b": "2", "c": "3"}) == (
        changed.description,
        changed.owner,
        changed.tags,
    )


def test_notes_of_a_version_change_and_its_artifact_stays() -> None:
    here = world()
    version = add(here, 1)

    ask = UpdateVersion(version="bike@1", description="night shift", tags={"checked": "yes"})
    here.owner.perform("version.update", ask, VersionNotes)

    shown = here.owner.perform("model.show", ShowModel(ref="bike@1"), ModelView)
    assert shown.notes is not None
    assert ("night shift", {"checked": "yes"}) == (shown.notes.description, shown.notes.tags)
    assert version == shown.version


def test_the_number_of_a_deleted_version_is_never_given_again() -> None:
    here = world()
    add(here, 1)
    second = add(here, 2)

    delete_version(here, "bike@2")
    third = add(here, 3)

    assert (3, [3, 1], [2]) == (third.number, numbers(here), numbers(here, "deleted"))
    assert third.version > second.version
    with pytest.raises(NotFound) as refused:
        resolve(here, "bike@2")
    assert "model_version.deleted" == refused.value.code


def test_a_model_that_is_deleted_and_made_again_goes_on_counting() -> None:
    here = world()
    old = [add(here, 1), add(here, 2)]
    move(here, "best", "2")
    delete_model(here)
    with pytest.raises(NotFound):
        resolve(here, "bike@1")

    create(here)
    fresh = add(here, 3)

    assert (3, [3]) == (fresh.number, numbers(here))
    assert fresh.version not in {version.version for version in old}
    for gone in ("bike@1", "bike@2", "bike@1.0.0", "bike@best"):
        with pytest.raises(NotFound):
            resolve(here, gone)


def test_no_search_shows_versions_of_a_model_in_the_trash_unless_asked() -> None:
    here = world()
    add(here, 1)
    add(here, 2, name="other")

    def found(deleted: str = "active") -> list[str]:
        ask = SearchVersions(deleted=deleted)  # type: ignore[arg-type]
        page = here.owner.perform("version.search", ask, FoundVersions)
        return sorted(item.version.name for item in page.items)

    before = found()
    delete_model(here)

    assert (["bike", "other"], ["other"], ["bike"]) == (before, found(), found("deleted"))


def test_the_same_bytes_come_back_from_the_trash_under_their_old_number() -> None:
    here = world()
    first = add(here, 1)
    delete_model(here)

    again = add(here, 1)

    assert first == again
    assert [1] == numbers(here)


def test_a_model_comes_back_from_the_trash_with_its_versions_and_aliases() -> None:
    here = world()
    add(here, 1)
    add(here, 2)
    move(here, "best", "2")
    delete_version(here, "bike@1")
    delete_model(here)
    trash = here.owner.perform("model.list", ListModels(deleted="deleted"), ModelList)

    here.owner.perform("model.restore", NameModel(name="bike"), Model)

    assert ["bike"] == [item.name for item in trash.items]
    assert [2] == numbers(here)
    assert 2 == resolve(here, "bike@best").number


def test_a_deleted_version_loses_its_aliases_and_the_past_still_tells_them() -> None:
    here = world()
    add(here, 1)
    move(here, "best", "1")
    then = here.clock.now().isoformat()
    here.clock.push(days=1)

    delete_version(here, "bike@best")

    with pytest.raises(NotFound):
        resolve(here, "bike@best")
    assert 1 == resolve(here, "bike@best", as_of=then).number
    here.owner.perform("version.restore", NameVersion(version="bike@1"), VersionNotes)
    assert 1 == resolve(here, "bike@1").number


def test_a_version_under_a_protected_alias_is_not_deleted() -> None:
    here = world()
    here.configure({"registry": {"protected_aliases": ["Champion"]}})
    add(here, 1)
    move(here, "champion", "1", why="it won")

    with pytest.raises(Conflict) as one:
        delete_version(here, "bike@1")
    with pytest.raises(Conflict) as whole:
        delete_model(here)

    assert "model_version.in_use" == one.value.code == whole.value.code
    assert "protected alias 'champion'" in one.value.message


def test_a_protected_alias_needs_the_role_and_a_reason_and_others_do_not() -> None:
    here = world()
    here.configure({"registry": {"protected_aliases": ["champion"]}})
    add(here, 1)
    ann = here.person("ann", Role.CONTRIBUTOR)
    free = MoveAlias(model="bike", alias="mine", version="1", why="x")
    bare = MoveAlias(model="bike", alias="CHAMPION", version="1", why="  ")
    told = MoveAlias(model="bike", alias="champion", version="1", why="it won")

    ann.perform("model.alias", free, AliasMove)

    with pytest.raises(Denied):
        ann.perform("model.alias", told, AliasMove)
    with pytest.raises(InvalidInput) as refused:
        here.owner.perform("model.alias", bare, AliasMove)
    assert "alias.reason_missing" == refused.value.code
    assert "it won" == here.owner.perform("model.alias", told, AliasMove).why


def test_the_past_of_an_alias_says_what_who_why_and_what_was_before() -> None:
    here = world()
    add(here, 1)
    add(here, 2)
    move(here, "best", "1", why="first try")
    noon = here.clock.now().isoformat()
    here.clock.push(days=1)
    later = here.clock.now()
    move(here, "best", "2", why="better at night")

    ask = AliasesAt(name="bike", alias="best", as_of=noon)
    past = here.owner.perform("model.aliases_at", ask, AliasStandings).items[0]
    now = here.owner.perform("model.aliases_at", AliasesAt(name="bike"), AliasStandings).items[0]

    assert ("1.0.0", 1, "first try", None, later) == (
        past.version,
        past.number,
        past.why,
        past.before,
        past.until,
    )
    assert ("1.1.0", "better at night", "1.0.0", None) == (
        now.version,
        now.why,
        now.before,
        now.until,
    )
    assert "owner" == now.who


def test_an_alias_that_was_not_set_by_then_is_not_found() -> None:
    here = world()
    add(here, 1)
    move(here, "best", "1")

    ask = AliasesAt(name="bike", alias="best", as_of="2020-01-01")
    with pytest.raises(NotFound) as refused:
        here.owner.perform("model.aliases_at", ask, AliasStandings)

    assert "alias.not_found" == refused.value.code


def test_a_renamed_model_keeps_its_numbers_and_its_old_name_says_where_it_went() -> None:
    here = world()
    add(here, 1)

    here.owner.perform("model.rename", RenameModel(name="bike", to="cycle"), Model)

    assert "cycle" == resolve(here, "cycle@1").name
    with pytest.raises(NotFound) as refused:
        resolve(here, "bike@1")
    assert "'cycle'" in refused.value.hint


def test_a_new_model_under_a_given_up_name_does_not_repeat_its_numbers() -> None:
    here = world()
    add(here, 1)
    here.owner.perform("model.rename", RenameModel(name="bike", to="cycle"), Model)

    fresh = add(here, 2)

    assert (2, "bike") == (fresh.number, fresh.name)
    assert "1.0.0" != fresh.version


def test_no_other_model_gets_a_given_up_name_and_its_own_gets_it_back() -> None:
    here = world()
    add(here, 1)
    add(here, 2, name="other")
    here.owner.perform("model.rename", RenameModel(name="bike", to="cycle"), Model)

    with pytest.raises(Conflict) as refused:
        here.owner.perform("model.rename", RenameModel(name="other", to="bike"), Model)
    here.owner.perform("model.rename", RenameModel(name="cycle", to="bike"), Model)

    assert "model.name_retired" == refused.value.code
    assert 1 == resolve(here, "bike@1").number


def test_a_name_that_two_models_had_goes_on_counting_from_the_second() -> None:
    here = world()
    add(here, 1)
    here.owner.perform("model.rename", RenameModel(name="bike", to="cycle"), Model)
    add(here, 2)
    here.owner.perform("model.rename", RenameModel(name="bike", to="velo"), Model)

    third = add(here, 3)

    assert (3, "bike") == (third.number, third.name)


def test_a_purged_model_does_not_give_its_numbers_to_the_next_of_its_name() -> None:
    here = world()
    add(here, 1)
    add(here, 2)
    for ref in ("bike@1", "bike@2"):
        delete_version(here, ref)
    delete_model(here)
    here.clock.push(days=400)
    purged = here.owner.perform("trash.purge", PurgeTrash(), Purged)

    fresh = add(here, 3)

    assert purged.rows
    assert [] == list(purged.refused)
    assert 3 == fresh.number
    assert "1.0.0" != fresh.version


def test_a_stage_archives_the_others_of_that_stage_when_asked() -> None:
    here = world()
    add(here, 1)
    add(here, 2)

    def stage(ref: str, name: str, *, archive: bool = False) -> VersionNotes:
        ask = StageVersion(version=ref, stage=name, archive_others=archive)  # type: ignore[arg-type]
        return here.owner.perform("version.stage", ask, VersionNotes)

    stage("bike@1", "Production")
    stage("bike@2", "Production", archive=True)

    first = here.owner.perform("model.show", ShowModel(ref="bike@1"), ModelView).notes
    assert first is not None
    assert "Archived" == first.stage
    with pytest.raises(InvalidInput):
        stage("bike@2", "Archived", archive=True)
