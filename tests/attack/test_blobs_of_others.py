"""Nobody gets, learns of, or lays claim to bytes of another project by knowing their digest."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import msgspec
import pytest

from everloop.app.server import build_app
from everloop.core.digest import content_digest
from everloop.core.errors import NotFound
from everloop.core.ids import IdSource
from everloop.core.manifest import FileEntry
from everloop.data.verbs import CommitDataset, Committed
from everloop.kernel.authz import Role
from everloop.kernel.blobs import KeepBlobs, KeptBlobs
from everloop.kernel.perform import Kernel
from everloop.kernel.performer import LocalPerformer
from everloop.kernel.tokens import CreateToken, NewToken
from everloop.registry.folders import CreateLoggedModel, PutLoggedFile
from everloop.registry.logged import LoggedModel
from everloop.track.lifecycle import RunShown, UpdateRun
from everloop.track.queries import RunDetails, ShowRun
from everloop.track.traces import LogTrace, TraceShown
from everloop.track.verbs import ArtifactFile, LogRun, RunLogged, RunStarted, StartRun
from tests.kit import World, world
from tests.unit.http.calling import HOST, LoopbackClient

IDS = IdSource(lambda: 1_767_225_600_000, os.urandom)
SECRET = b"the other project's weights"
DIGEST = content_digest(SECRET)
UNKNOWN = content_digest(b"bytes that nobody has put")


@dataclass
class Scene:
    """Project ``rich`` holds a secret; Mallory writes in ``poor`` and knows its digest."""

    world: World
    client: LoopbackClient
    headers: dict[str, str]
    mallory: LocalPerformer
    run: str

    def get(self, digest: str, project: str = "poor") -> int:
        path = f"/api/v1/projects/{project}/blobs/{digest}"
        return self.client.get(path, headers=self.headers).status_code

    def state(self, verb: str, digest: str) -> object:
        path = f"/api/v1/projects/poor/{verb}"
        return self.client.get(path, headers=self.headers, params={"digest": digest}).json()


@pytest.fixture
def scene() -> Iterator[Scene]:
    made = world()
    made.project("rich")
    made.project("poor")
    owner = made.service("owner", "rich")
    log_file(owner, start(owner), owner.blobs.put(SECRET))
    mallory = made.person("mallory", Role.CONTRIBUTOR, project="poor")
    token = made.instance(CreateToken(name="t", actor="mallory"), "token.create")
    assert isinstance(token, NewToken)
    app = build_app(made.kernel, hosts=frozenset({HOST}))
    with LoopbackClient(app) as client:
        headers = {"Authorization": f"Bearer {token.secret}"}
        yield Scene(made, client, headers, mallory, start(mallory))


def start(performer: LocalPerformer) -> str:
    run = IDS.new()
    performer.perform("run.start", StartRun(run=run), RunStarted)
    return run


def log_file(performer: LocalPerformer, run: str, digest: str) -> None:
    file = ArtifactFile(path="weights.bin", digest=digest, size_bytes=len(SECRET))
    performer.perform("run.log", LogRun(run=run, artifacts=(file,)), RunLogged)


def test_the_digest_alone_fetches_nothing_from_another_project(scene: Scene) -> None:
    assert 404 == scene.get(DIGEST)
    assert 403 == scene.get(DIGEST, project="rich")


@pytest.mark.parametrize("verb", ["blob.get", "blob.put"])
def test_bytes_of_others_look_like_bytes_that_nobody_has(scene: Scene, verb: str) -> None:
    told = scene.state(verb, DIGEST)

    assert {"digest": DIGEST, "size_bytes": None} == told
    assert {"digest": UNKNOWN, "size_bytes": None} == scene.state(verb, UNKNOWN)


def experiment_of(scene: Scene) -> str:
    return scene.mallory.perform("run.show", ShowRun(run=scene.run), RunDetails).run.experiment


def name_as_artifact(scene: Scene) -> None:
    log_file(scene.mallory, scene.run, DIGEST)


def name_as_environment(scene: Scene) -> None:
    ask = StartRun(run=IDS.new(), environment=DIGEST)
    scene.mallory.perform("run.start", ask, RunStarted)


def name_in_a_dataset(scene: Scene) -> None:
    file = FileEntry(path="x.csv", digest=DIGEST, size_bytes=len(SECRET))
    scene.mallory.perform("data.commit", CommitDataset(name="stolen", files=(file,)), Committed)


def name_in_a_trace(scene: Scene) -> None:
    ask = LogTrace(trace="tr-1", experiment=experiment_of(scene), spans=DIGEST)
    scene.mallory.perform("trace.log", ask, TraceShown)


def name_in_a_logged_model(scene: Scene) -> None:
    model = str(scene.world.kernel.services.ids.new())
    ask = CreateLoggedModel(model=model, experiment=experiment_of(scene), name="m")
    scene.mallory.perform("logged_model.create", ask, LoggedModel)
    file = PutLoggedFile(model=model, path="w.bin", digest=DIGEST, size_bytes=len(SECRET))
    scene.mallory.perform("logged_model.put", file, LoggedModel)


def name_to_keep(scene: Scene) -> None:
    scene.mallory.perform("blob.keep", KeepBlobs(digests=(DIGEST,)), KeptBlobs)


@pytest.mark.parametrize(
    "name",
    [
        name_as_artifact,
        name_as_environment,
        name_in_a_dataset,
        name_in_a_trace,
        name_in_a_logged_model,
        name_to_keep,
    ],
    ids=lambda name: name.__name__,
)
def test_a_record_cannot_lay_claim_to_bytes_of_others(
    scene: Scene, name: Callable[[Scene], None]
) -> None:
    with pytest.raises(NotFound) as refused:
        name(scene)

    assert "blob.not_found" == refused.value.code
    assert 404 == scene.get(DIGEST)


def test_a_text_that_names_bytes_of_others_gives_no_right_to_them(scene: Scene) -> None:
    ask = UpdateRun(run=scene.run, tags={"mine": DIGEST})
    scene.mallory.perform("run.update", ask, RunShown)

    assert 404 == scene.get(DIGEST)


def test_who_has_the_bytes_may_put_and_use_them(scene: Scene) -> None:
    path = f"/api/v1/projects/poor/blobs/{DIGEST}"
    put = scene.client.request("PUT", path, headers=scene.headers, content=SECRET)
    log_file(scene.mallory, scene.run, DIGEST)

    assert (201, 200) == (put.status_code, scene.get(DIGEST))


@pytest.mark.parametrize("how", ["PUT", "stream", "batch"])
def test_bytes_put_over_http_are_usable_through_another_process(scene: Scene, how: str) -> None:
    place = "/api/v1/projects/poor/blobs"
    data = f"put by {how}".encode()
    digest = content_digest(data)
    match how:
        case "PUT":
            ask = ("PUT", f"{place}/{digest}", data)
        case "stream":
            ask = ("POST", f"{place}:stream", data)
        case _:
            ask = ("POST", f"{place}:batch", msgspec.msgpack.encode([data, b"more"]))
    method, path, content = ask
    sent = scene.client.request(method, path, headers=scene.headers, content=content)
    kernel = scene.world.kernel
    other = LocalPerformer(
        Kernel(kernel.store, kernel.services, origin=kernel.origin),
        scene.world.people["mallory"],
        "poor",
    )
    file = ArtifactFile(path="x.bin", digest=digest, size_bytes=len(data))
    other.perform("run.log", LogRun(run=scene.run, artifacts=(file,)), RunLogged)

    assert 201 == sent.status_code
    assert data == other.blobs.get(digest)


def test_a_refused_put_gives_no_right(scene: Scene) -> None:
    path = f"/api/v1/projects/poor/blobs/{DIGEST}"
    put = scene.client.request("PUT", path, headers=scene.headers, content=b"something else")

    assert (400, 404) == (put.status_code, scene.get(DIGEST))


def test_part_of_an_upload_cannot_be_bytes_of_others(scene: Scene) -> None:
    place = f"mlflow-artifacts/mpu/complete/1/{scene.run}/artifacts"
    answer = scene.client.request(
        "POST",
        f"/p/poor/api/2.0/{place}",
        headers=scene.headers,
        json={"path": "w.bin", "upload_id": "x", "parts": [{"part_number": 1, "etag": DIGEST}]},
    )

    assert 404 == answer.status_code
    assert SECRET not in answer.content
