"""What a serving process is told: who may ask, and which folder is whose."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import msgspec
import pyarrow as pa
import pytest

from everloop.app import processes
from everloop.app.config import Config
from everloop.app.home import Home
from everloop.app.serving import Supervisor, serving_folder, tokens_of, write_routes
from everloop.core.ids import ActorId, Id, ProjectId
from everloop.core.ports import where
from everloop.core.wire import Applied, RefusedBundle, Routes
from everloop.data.snapshot import commit_table
from everloop.kernel.admin import DisableActor, RevokeRole
from everloop.kernel.authz import Project, Role, hash_secret
from everloop.kernel.bootstrap import SERVER, local_caller
from everloop.kernel.tokens import CreateToken, NewToken, RevokeToken
from everloop.kernel.unit_of_work import View
from everloop.release.model import Deployment
from everloop.serve.switchboard import Switchboard
from tests.kit import PROJECT, World, world
from tests.unit.release.released import Released


@pytest.fixture
def here() -> World:
    made = world()
    made.project("other")
    for name, role in (("ann", Role.CONTRIBUTOR), ("vic", Role.VIEWER)):
        made.person(name, role)
    made.person("far", Role.ADMIN, project="other")
    return made


def deployment(here: World, id_: str = "01a1fdf4-0000-7000-8000-000000000001") -> Deployment:
    with here.kernel.store.read() as tx:
        project = tx.select(Project, *where(name=PROJECT))[0]
    return Deployment(
        id=Id(id_),
        project=ProjectId(project.id),
        name="demand",
        model=Id("m"),
        champion=None,
        previous=None,
        epoch=1,
        created_at=here.clock.now(),
        created_by=ActorId("ann"),
    )


def token(here: World, **fields: object) -> NewToken:
    made = here.instance(CreateToken(name="t", **fields), "token.create")  # type: ignore[arg-type]
    assert isinstance(made, NewToken)
    return made


def may_ask(here: World, made: NewToken) -> bool:
    target = deployment(here)
    with here.kernel.store.read() as tx:
        caller = local_caller(here.kernel, SERVER)
        view = View(tx, caller, target.project, here.kernel.services)
        hashes = {item.hash for item in tokens_of(view, target, here.clock.now()).predict}
    return hash_secret(made.secret) in hashes


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"actor": "ann"}, True),
        ({"actor": "ann", "scope": ("prediction:predict",)}, True),
        ({"actor": "ann", "scope": ("*:predict",), "project": PROJECT}, True),
        ({"actor": "ann", "scope": ("*:read",)}, False),
        ({"actor": "ann", "project": "other"}, False),
        ({"actor": "vic"}, False),
        ({"actor": "far"}, False),
        ({}, True),
    ],
)
def test_a_token_may_ask_if_its_actor_and_its_scope_may(
    here: World, fields: dict[str, object], expected: bool
) -> None:
    assert expected == may_ask(here, token(here, **fields))


def test_a_good_token_that_may_not_ask_is_known_as_such(here: World) -> None:
    made = token(here, actor="ann", scope=("*:read",))
    target = deployment(here)

    with here.kernel.store.read() as tx:
        view = View(tx, local_caller(here.kernel, SERVER), target.project, here.kernel.services)
        found = tokens_of(view, target, here.clock.now())

    assert hash_secret(made.secret) in {each.hash for each in found.others}
    assert not {*found.others} & {*found.predict, *found.feedback}


def test_an_ended_token_may_not_ask(here: World) -> None:
    revoked, expired = token(here, actor="ann"), token(here, actor="ann", days=1)
    here.instance(RevokeToken(id=revoked.id), "token.revoke")
    here.clock.push(days=2)

    assert not may_ask(here, revoked)
    assert not may_ask(here, expired)


def test_a_token_ends_with_its_actors_role(here: World) -> None:
    made = token(here, actor="ann")

    here.instance(RevokeRole(actor="ann", role=Role.CONTRIBUTOR, project=PROJECT), "role.revoke")

    assert not may_ask(here, made)


def test_a_token_ends_with_its_actor(here: World) -> None:
    made = token(here, actor="ann")

    here.instance(DisableActor(actor="ann"), "actor.disable")

    assert not may_ask(here, made)


def test_a_deployment_of_the_same_name_gets_a_folder_of_its_own(
    here: World, tmp_path: Path
) -> None:
    home = Home(tmp_path / ".everloop").create()
    first = deployment(here)
    second = deployment(here, "01a1fdf4-0000-7000-8000-000000000002")

    folders = [serving_folder(home, each, PROJECT) for each in (first, second, first)]

    assert home.serve("demand") == folders[0] == folders[2]
    assert folders[0] != folders[1]
    assert folders[1].parent == folders[0].parent


def test_routes_are_written_only_when_they_change(tmp_path: Path) -> None:
    routes = Routes(epoch=1, deployment="demand", public_key="00")

    written = [write_routes(tmp_path, routes), write_routes(tmp_path, routes)]

    assert [True, False] == written
    assert ["routes.json"] == [path.name for path in tmp_path.iterdir()]


def test_routes_are_in_force_although_a_bundle_cannot_be_written(tmp_path: Path) -> None:
    released = Released()
    version = released.version(1.0)
    released.start(version)
    home = Home(tmp_path / ".everloop").create()
    bundles = home.serve("bikes") / "bundles"
    bundles.mkdir(parents=True)
    (bundles / f".{version.id}.{os.getpid()}").write_bytes(b"in the way")
    kernel = released.world.kernel
    supervisor = Supervisor(home, kernel, local_caller(kernel, SERVER), Config(project=PROJECT))

    try:
        supervisor.step()
    finally:
        supervisor.stop()

    assert not (bundles / version.id).exists()
    routes = msgspec.json.decode((bundles.parent / "routes.json").read_bytes(), type=Routes)
    assert version.id == (routes.champion and routes.champion.version_id)


def test_a_damaged_bundle_that_the_server_refused_is_written_again(tmp_path: Path) -> None:
    released = Released()
    champion = released.version(1.0)
    released.champion(champion)
    home = Home(tmp_path / ".everloop").create()
    kernel = released.world.kernel
    supervisor = Supervisor(home, kernel, local_caller(kernel, SERVER), Config(project=PROJECT))
    folder = home.serve("bikes")
    refusal = RefusedBundle(
        role="champion", version_id=champion.id, code="bundle.file_changed", message=""
    )
    now = released.world.clock.now()

    try:
        supervisor.refresh()
        board = Switchboard(folder, released.world.clock)
        place = folder / "bundles" / champion.id
        for file in place.iterdir():
            file.write_bytes(b"damaged")
        board.reload()
        applied = Applied(epoch=0, seen_epoch=1, at=now, pid=1, refused=(refusal,))
        (folder / "applied.json").write_bytes(msgspec.json.encode(applied))
        before = board.lineup.champion
        supervisor.refresh()
        board.complete()
    finally:
        supervisor.stop()

    assert (None, ()) == (before, board.refused)
    assert board.lineup.champion is not None
    assert [champion.id] == [path.name for path in (folder / "bundles").iterdir()]


def test_an_input_called_personal_after_its_bundle_was_sealed_is_masked_too(
    tmp_path: Path,
) -> None:
    released = Released()
    rows = pa.table({"hour": [1, 2], "temperature": [0.5, 1.5], "rentals": [1.0, 2.0]})
    trained_on = commit_table(released.owner, "rides", rows)
    champion = released.version(1.0, dataset=trained_on.id)
    released.champion(champion)
    home = Home(tmp_path / ".everloop").create()
    kernel = released.world.kernel
    supervisor = Supervisor(home, kernel, local_caller(kernel, SERVER), Config(project=PROJECT))
    contracts: tuple[dict[str, object], ...] = (
        {"hour": {}},
        {"hour": {}, "temperature": {"personal": True}},
    )
    masked = []

    try:
        for columns in contracts:
            released.world.configure({"datasets": {"rides": {"contract": {"columns": columns}}}})
            supervisor.refresh()
            routes = (home.serve("bikes") / "routes.json").read_bytes()
            masked.append(msgspec.json.decode(routes, type=Routes).log.masked)
    finally:
        supervisor.stop()

    assert [(), ("temperature",)] == masked


def test_an_error_is_said_when_it_begins_and_again_when_it_comes_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    released = Released()
    version = released.version(1.0)
    released.start(version)
    home = Home(tmp_path / ".everloop").create()
    bundles = home.serve("bikes") / "bundles"
    bundles.mkdir(parents=True)
    in_the_way = bundles / f".{version.id}.{os.getpid()}"
    kernel = released.world.kernel
    supervisor = Supervisor(home, kernel, local_caller(kernel, SERVER), Config(project=PROJECT))
    said = []

    try:
        for is_broken in (True, True, False, True):
            shutil.rmtree(bundles / version.id, ignore_errors=True)
            if is_broken:
                in_the_way.write_bytes(b"")
            else:
                in_the_way.unlink()
            caplog.clear()
            supervisor.refresh()
            said.append(sum(version.id in record.getMessage() for record in caplog.records))
    finally:
        supervisor.stop()

    assert [1, 0, 0, 1] == said


def test_the_messages_of_a_running_server_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "OUTPUT_BYTES", 1_000)
    output = tmp_path / processes.OUTPUT_FILE
    process = processes.ServingProcess(tmp_path, key="00" * 32)
    with output.open("ab") as stream:  # as the server has it open
        stream.write(b"old" * 500)
        stream.flush()

        process.keep()
        process.ask_to_stop()
        process.wait()
        stream.write(b"new")

    assert b"old" * 500 == output.with_suffix(".old").read_bytes()
    assert b"old" not in output.read_bytes()
    assert output.read_bytes().endswith(b"new")
