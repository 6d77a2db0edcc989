"""A program far from the server gets the same answers and the same refusals as one beside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from everloop.app.client import Client, connect, connect_home, with_reason
from everloop.app.config import parse_config
from everloop.app.home import Home
from everloop.app.sdk import read
from everloop.app.server import ServerOptions, allowed_hosts, answering, build_app, listening
from everloop.app.starting import start_project
from everloop.app.tracking import start_run
from everloop.core.digest import Digest, content_digest
from everloop.core.errors import (
    Denied,
    InvalidInput,
    NotAuthenticated,
    NotFound,
    Unavailable,
)
from everloop.data.snapshot import commit_path
from everloop.kernel.ledger.log import LedgerPayload
from everloop.kernel.tokens import CreateToken, NewToken
from everloop.registry.model import ModelVersion
from everloop.registry.queries import ListModels, ModelList, ResolveModel
from everloop.track.queries import RunDetails, ShowRun


@pytest.fixture(scope="module")
def near(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    folder = tmp_path_factory.mktemp("remote")
    start_project(folder, "demo")
    with connect_home(Home(folder / ".everloop")) as client:
        yield client


@pytest.fixture(scope="module")
def far(near: Client) -> Iterator[Client]:
    config, options = parse_config("project: demo"), ServerOptions(port=0)
    assert near.kernel is not None
    app = build_app(near.kernel, hosts=allowed_hosts(config, options))
    made = near.perform("token.create", CreateToken(name="far"), NewToken)
    with listening(config, options) as listener, answering(app, listener):
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with connect(url, project="demo", token=made.secret) as client:
            yield client


def test_a_question_has_the_same_answer(near: Client, far: Client) -> None:
    ask = ListModels()

    assert near.perform("model.list", ask, ModelList) == far.perform("model.list", ask, ModelList)


def test_a_refusal_is_the_same_error_with_the_same_words(near: Client, far: Client) -> None:
    told = []
    for client in (near, far):
        with pytest.raises(NotFound) as refused:
            client.perform("model.resolve", ResolveModel(ref="nothing"), ModelVersion)
        told.append((refused.value.code, refused.value.message, refused.value.hint))

    assert told[0] == told[1]


def test_data_goes_there_and_comes_back_with_its_reason(
    near: Client, far: Client, tmp_path: Path
) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("x,y\n1,2\n3,4\n")

    version = commit_path(with_reason(far, "Weil's nötig ist."), "rows", file, message="Größe")

    assert {"x": [1, 3], "y": [2, 4]} == read("rows@1", client=far).to_pydict()
    assert near.kernel is not None
    with near.kernel.store.read() as tx:
        texts = [row.text or "" for row in tx.select(LedgerPayload)]
    assert any("Weil's nötig ist." in text and version.id in text for text in texts)


def test_a_run_logged_from_afar_arrives_whole(near: Client, far: Client, tmp_path: Path) -> None:
    with start_run("far", params={"depth": 3}, client=far) as run:
        for step in range(50):
            run.log_metric("loss", 1 / (step + 1), step)
        run.log_artifact(b"kept", "note.txt")

    found = near.perform("run.show", ShowRun(run=run.id), RunDetails)

    assert {"depth": "3"} == found.run.params
    assert [50] == [metric.count for metric in found.metrics]
    assert 1 == found.artifacts


def test_bytes_that_are_not_there_are_not_found(far: Client) -> None:
    digest = content_digest(b"never put")

    assert far.blobs.size(digest) is None
    with pytest.raises(NotFound):
        far.blobs.get(digest)
    with pytest.raises(InvalidInput):
        far.blobs.size(Digest("../../etc/passwd"))


def test_a_project_name_cannot_lead_the_request_elsewhere(far: Client) -> None:
    assert far.url is not None
    client = connect(far.url, project="../login.open?x=", token="evl_" + "0" * 64)

    with client, pytest.raises((NotAuthenticated, NotFound, Denied)):
        client.perform("model.list", ListModels(), ModelList)


def test_a_server_that_is_away_is_said_to_be_away() -> None:
    client = connect("http://127.0.0.1:9", project="demo", token="evl_x")

    with client, pytest.raises(Unavailable) as refused:
        client.perform("model.list", ListModels(), ModelList)

    assert "server.unreachable" == refused.value.code
    assert "everloop up" in refused.value.hint
