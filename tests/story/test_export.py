"""A model leaves: exported from a project, served as platforms start it, refused when spoiled."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import signal
import socket
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import httpx
import lightgbm
import numpy as np
import pyarrow.csv
import pytest

from everloop.app.client import connect, connect_home
from everloop.app.config import parse_config
from everloop.app.exporting import fetch_subject
from everloop.app.home import Home
from everloop.app.server import ServerOptions, allowed_hosts, answering, build_app, listening
from everloop.cli.main import main
from everloop.core.errors import Denied
from everloop.kernel.tokens import CreateToken, NewToken
from tests.story.project import SETTINGS, Project, wait_for, write_hours
from tests.unit.export.exported import install, serve_command

TOKEN = "evl_" + "5e" * 32


class Done(NamedTuple):
    code: int
    out: str
    err: str


@dataclass
class Shop:
    """A project with a version that passed its gate, and one that was never measured."""

    project: Project
    row: dict[str, float]

    @property
    def folder(self) -> Path:
        return self.project.folder

    def run(self, *arguments: str) -> Done:
        """Run a command line in this process; what it says is caught."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.chdir(self.folder), redirect_stdout(out), redirect_stderr(err):
            code = main(arguments)
        return Done(code, out.getvalue(), err.getvalue())

    def must(self, *arguments: str) -> str:
        """Run a command line that works; return what it printed."""
        done = self.run(*arguments)
        assert 0 == done.code, done.err
        return done.out


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    made = Shop(Project(tmp_path_factory.mktemp("shop")), {})
    (made.folder / "everloop.yaml").write_text(SETTINGS)
    made.must("init")
    for name, first in (("hours", 0), ("hours-holdout", 400)):
        write_hours(made.folder / f"{name}.csv", first=first, count=400)
        made.must("data", "commit", name, f"{name}.csv")
    table = pyarrow.csv.read_csv(made.folder / "hours.csv")
    names = ["temperature", "hour"]
    matrix = np.column_stack([table.column(name).to_numpy() for name in names])
    params = {"objective": "regression", "num_leaves": 7, "verbosity": -1, "num_threads": 1}
    for number in (1, 2):
        data = lightgbm.Dataset(matrix, label=table.column("cnt").to_numpy(), feature_name=names)
        file = made.folder / f"{number}.txt"
        lightgbm.train(params, data, num_boost_round=20 * number).save_model(file)
        told = ("--training", "hours@1", "--holdout", "hours-holdout@1", "--target", "cnt")
        inputs = ("--input", "temperature", "--input", "hour")
        made.must("models", "register", "demand", file.name, *told, *inputs)
    made.must("gate", "evaluate", "demand@1")
    made.row = {name: table.column(name)[0].as_py() for name in names}
    return made


@pytest.fixture(scope="module")
def image(shop: Shop) -> Path:
    shop.must("export", "image", "model:demand@1", "-o", "image", "--reason", "For the shop")
    return shop.folder / "image"


@pytest.fixture(scope="module")
def site(image: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(image, tmp_path_factory.mktemp("image") / "site")


@contextmanager
def running(
    site: Path, *arguments: str, variables: dict[str, str]
) -> Iterator[tuple[httpx.Client, subprocess.Popen[str]]]:
    """Run the server with what the image holds and nothing else; give a client of it."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    process = subprocess.Popen(
        serve_command(*arguments),
        env={"PYTHONPATH": str(site), "PORT": str(port), "EVERLOOP_HOST": "127.0.0.1"} | variables,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
            wait_for(
                lambda: process.poll() is not None or client.get("/readyz").status_code == 200,
                "the server is ready",
            )
            yield client, process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)


def predicted(client: httpx.Client, row: dict[str, float], **headers: str) -> Any:
    """Ask for one row; return the answer or the status of a refusal."""
    answer = client.post("/v1/predict", json={"inputs": [row]}, headers=headers)
    return answer.json()["predictions"][0]["output"] if answer.is_success else answer.status_code


def expected(shop: Shop) -> float:
    booster = lightgbm.Booster(model_file=shop.folder / "1.txt")
    return float(booster.predict(np.array([list(shop.row.values())]))[0])


def test_an_exported_image_answers_as_the_training_framework(
    shop: Shop, image: Path, site: Path
) -> None:
    variables = {
        "EVERLOOP_MODEL": str(image / "bundle"),
        "EVERLOOP_PUBLIC_KEY": (image / "bundle" / "bundle.pub").read_text(),
    }

    with running(site, "serve", variables=variables) as (client, process):
        answer = predicted(client, shop.row)
        probe = subprocess.run(
            [*serve_command()[:3], "-m", "everloop.serve.probe"],
            env={"PYTHONPATH": str(site), "PORT": str(client.base_url.port)},
            check=False,
        )
        process.send_signal(signal.SIGTERM)
        code = process.wait(20)

    assert expected(shop) == answer
    assert (0, 0) == (probe.returncode, code)


def test_an_export_is_the_same_bytes_every_time(shop: Shop, image: Path) -> None:
    shop.must("export", "image", "model:demand@1", "-o", "again")

    assert contents(image) == contents(shop.folder / "again")


def test_a_bundle_is_served_from_where_a_platform_puts_it(
    shop: Shop, site: Path, tmp_path: Path
) -> None:
    shop.must("export", "bundle", "demand@1", "-o", str(tmp_path / "model.tar.gz"))
    with tarfile.open(tmp_path / "model.tar.gz") as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")

    for variables in (
        {"AZUREML_MODEL_DIR": str(tmp_path / "unpacked")},
        {"EVERLOOP_MODEL": str(tmp_path / "unpacked"), "EVERLOOP_LOG": str(tmp_path / "log")},
    ):
        with running(site, variables=variables) as (client, _):
            assert expected(shop) == predicted(client, shop.row)
    assert any((tmp_path / "log").rglob("*"))


def test_vertex_names_an_address_and_the_bundle_is_fetched_from_it(
    shop: Shop, tmp_path: Path
) -> None:
    told = shop.must("export", "bundle", "demand@1", "-o", str(tmp_path / "b"), "--json")
    key = json.loads(told)["public_key"]
    shop.must("export", "image", "--without-model", "lightgbm", "-o", str(tmp_path / "i"))
    site = install(tmp_path / "i", tmp_path / "site", also=("storage",))
    place = "/v1/endpoints/7/deployedModels/9"
    variables = {
        "AIP_STORAGE_URI": (tmp_path / "b").as_uri(),
        "AIP_HEALTH_ROUTE": place,
        "AIP_PREDICT_ROUTE": f"{place}:predict",
        "EVERLOOP_PUBLIC_KEY": key,
    }

    with running(site, variables=variables) as (client, _):
        healthy = client.get(place)
        answer = client.post(f"{place}:predict", json={"instances": [shop.row, shop.row]})

    assert 200 == healthy.status_code
    assert {"predictions": [expected(shop)] * 2} == answer.json()


def test_sagemaker_pings_and_sends_invocations(shop: Shop, image: Path, site: Path) -> None:
    variables = {"EVERLOOP_MODEL": str(image / "bundle")}

    with running(site, "serve", variables=variables) as (client, _):
        ping = client.get("/ping")
        answer = client.post("/invocations", json={"dataframe_records": [shop.row]})

    assert 200 == ping.status_code
    assert {"predictions": [expected(shop)]} == answer.json()


def test_every_face_of_the_server_is_in_the_image(image: Path, site: Path) -> None:
    with running(site, variables={"EVERLOOP_MODEL": str(image / "bundle")}) as (client, _):
        paths = ("/v2", "/v2/health/ready", "/v2/models/demand", "/metrics", "/whatif.js")
        statuses = {path: client.get(path).status_code for path in paths}
        page = client.get("/models/demand/whatif")

    assert {200} == set(statuses.values()), statuses
    assert (200, True) == (page.status_code, "<form" in page.text or "<script" in page.text)


def test_an_image_with_grpc_answers_over_it(
    shop: Shop, site: Path, tmp_path: Path, image: Path
) -> None:
    shop.must("export", "image", "demand@1", "--with", "grpc", "-o", str(tmp_path / "i"))
    whole = install(tmp_path / "i", tmp_path / "site", also=("grpc",))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    variables = {"EVERLOOP_MODEL": str(image / "bundle"), "EVERLOOP_GRPC_PORT": str(port)}

    with (
        running(whole, variables=variables),
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        ready = channel.unary_unary("/inference.GRPCInferenceService/ServerReady")(b"", timeout=10)
    with running(site, variables=variables) as (_, process):
        code = process.wait(20)

    assert b"\x08\x01" == ready  # field 1 is true
    assert 1 == code


def test_a_deployment_leaves_as_its_champion(shop: Shop, tmp_path: Path) -> None:
    nobody = shop.run("export", "bundle", "deployment:market", "-o", str(tmp_path / "b"))
    shop.must("release", "deploy", "market", "demand")
    empty = shop.run("export", "bundle", "deployment:market", "-o", str(tmp_path / "b"))
    shop.must("release", "start", "market", "demand@1")

    told = json.loads(
        shop.must("export", "bundle", "deployment:market", "-o", str(tmp_path / "b"), "--json")
    )

    assert (3, 5) == (nobody.code, empty.code)
    assert "1.0.0" == told["version"]
    assert "market" == json.loads((tmp_path / "b" / "bundle.json").read_text())["deployment"]


def test_a_tokens_file_says_who_may_ask(
    shop: Shop, image: Path, site: Path, tmp_path: Path
) -> None:
    (tmp_path / "tokens").write_text(hashlib.sha256(TOKEN.encode()).hexdigest() + "  # the shop\n")
    variables = {
        "EVERLOOP_MODEL": str(image / "bundle"),
        "EVERLOOP_TOKENS_FILE": str(tmp_path / "tokens"),
    }

    with running(site, variables=variables) as (client, _):
        assert 401 == predicted(client, shop.row)
        assert 401 == predicted(client, shop.row, authorization=f"Bearer {TOKEN}x")
        assert expected(shop) == predicted(client, shop.row, authorization=f"Bearer {TOKEN}")


@pytest.mark.parametrize("spoil", ["key", "model", "description"])
def test_a_bundle_that_was_touched_is_not_served(
    image: Path, site: Path, tmp_path: Path, spoil: str
) -> None:
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    for file in (image / "bundle").iterdir():
        (bundle / file.name).write_bytes(file.read_bytes())
    key = (bundle / "bundle.pub").read_text()
    if spoil == "key":
        key = "ab" * 32
    elif spoil == "model":
        (bundle / "model.txt").write_bytes((bundle / "model.txt").read_bytes() + b"\n")
    else:
        text = (bundle / "bundle.json").read_text()
        (bundle / "bundle.json").write_text(text.replace('"number":1', '"number":2'))

    done = subprocess.run(
        serve_command(str(bundle), "--port", "0"),
        env={"PYTHONPATH": str(site), "EVERLOOP_PUBLIC_KEY": key},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )

    assert 1 == done.returncode
    assert "bundle." in done.stderr
    assert "Traceback" not in done.stderr


def test_what_never_passed_its_gate_does_not_leave(shop: Shop) -> None:
    done = shop.run("export", "image", "model:demand@2", "-o", "never")

    assert 0 != done.code
    assert "gate" in done.err
    assert not (shop.folder / "never").exists()


def test_the_ledger_says_who_took_which_version_out_and_why(shop: Shop, image: Path) -> None:
    told = json.loads((image / "export.json").read_text())

    about = ("--action", "bundle.export", "--resource", f"model_version:{told['version_id']}")
    listed = json.loads(shop.must("audit", "list", *about, "--json"))["items"]
    assert "For the shop" in {entry["reason"] for entry in listed}
    assert 0 == shop.run("audit", "verify").code


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("image", "model:demand@1", "-o", "image"), "--force"),
        (("image", "-o", "x"), "Name a version"),
        (("image", "--without-model", "cobol", "-o", "x"), "lightgbm"),
        (("image", "demand@1", "--python", "2.7", "-o", "x"), "3.11"),
        (("kubernetes", "demand@1", "--image", "a b", "-o", "x"), "registry.example.com"),
        (("kubernetes", "demand@1", "--image", "a", "--replicas", "x", "-o", "x"), "2:6"),
        (("kserve", "demand@1", "--image", "a", "--storage-uri", "x", "-o", "x"), "s3://"),
        (("bundle", "deployment:nowhere", "-o", "x"), "deployment"),
        (("bundle", "demand@9", "-o", "x"), "version"),
        (("systemd", "demand@1", "--memory", "lots", "-o", "x"), "512M"),
    ],
)
def test_a_refused_export_says_why_and_leaves_nothing_behind(
    shop: Shop, image: Path, arguments: tuple[str, ...], words: str
) -> None:
    before = contents(image)

    done = shop.run("export", *arguments)

    assert 0 != done.code
    assert words in done.err
    assert "Traceback" not in done.err
    assert not (shop.folder / "x").exists()
    assert before == contents(image)


@pytest.mark.parametrize(
    ("arguments", "file"),
    [
        (("kubernetes", "--image", "r.example.com/demand:1.0.0"), "deployment.yaml"),
        (("kserve", "--image", "r.example.com/demand:1.0.0"), "inference-service.yaml"),
        (("seldon", "--image", "r.example.com/demand:1.0.0"), "seldon-deployment.yaml"),
        (("compose", "--image", "demand:1.0.0", "--build", "image"), "compose.yaml"),
        (("systemd",), "everloop-demand.service"),
    ],
)
def test_every_face_writes_its_folder_again_by_force(
    shop: Shop, arguments: tuple[str, ...], file: str
) -> None:
    what, *options = arguments
    command = ("export", what, "demand@1", *options, "-o", what)

    first = json.loads(shop.must(*command, "--json"))
    second = json.loads(shop.must(*command, "--json", "--force"))

    assert first == second
    assert file in first["files"]
    assert (shop.folder / what / file).is_file()
    assert [] == [path.name for path in shop.folder.iterdir() if path.name.startswith(f".{what}")]


def test_a_bundle_leaves_by_the_wire_as_it_does_at_home(shop: Shop) -> None:
    with connect_home(Home(shop.project.home)) as near:
        config, options = parse_config("project: demo"), ServerOptions(port=0)
        assert near.kernel is not None
        app = build_app(near.kernel, hosts=allowed_hosts(config, options))
        made = near.perform("token.create", CreateToken(name="far"), NewToken)
        reader = near.perform(
            "token.create", CreateToken(name="reader", scope=("*:read",)), NewToken
        )
        asking = near.perform(
            "token.create", CreateToken(name="asking", scope=("*:read", "*:predict")), NewToken
        )
        here = fetch_subject(near, "model:demand@1")
        with listening(config, options) as listener, answering(app, listener):
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            with connect(url, project="demo", token=made.secret) as client:
                far = fetch_subject(client, "model:demand@1")
            with (
                connect(url, project="demo", token=reader.secret) as client,
                pytest.raises(Denied),
            ):
                fetch_subject(client, "model:demand@1", to_score=True)
            with connect(url, project="demo", token=asking.secret) as client:
                lent = fetch_subject(client, "model:demand@1", to_score=True)
                with pytest.raises(Denied):
                    fetch_subject(client, "model:demand@1")

    assert here.seal == lent.seal
    assert here.files == far.files
    assert here.seal == far.seal


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("workers", ["1", "2"])
def test_systemd_hears_of_the_server_that_its_unit_starts(
    image: Path, site: Path, tmp_path: Path, workers: str
) -> None:
    variables = {"EVERLOOP_MODEL": str(image / "bundle"), "EVERLOOP_WORKERS": workers}
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(20)
        manager.bind(str(tmp_path / "notify"))
        variables |= {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "100000"}

        with running(site, variables=variables) as (_, process):
            told = {manager.recv(100) for _ in range(4)}
            process.send_signal(signal.SIGTERM)
            while b"STOPPING=1" not in told:
                told.add(manager.recv(100))

    assert {b"READY=1", b"WATCHDOG=1", b"STOPPING=1"} == told
