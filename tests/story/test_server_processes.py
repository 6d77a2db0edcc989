"""The control plane and its serving process, as real processes, from data to a rollback."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from everloop.app.client import connect_home
from everloop.app.home import Home
from everloop.app.sdk import commit
from everloop.app.training import train
from everloop.core.ids import Id
from everloop.gate.verbs import EvaluateGate
from everloop.loop.ports import TrainingJob
from everloop.registry.evidence import GateReport
from everloop.release.queries import DeploymentView, ReleaseView
from everloop.release.verbs import CreateDeployment, StartRelease
from tests.story.project import Project, make_project, wait_for, write_hours


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with data, a gated version and a deployment; nothing runs."""
    pytest.importorskip("lightgbm")
    project = make_project(tmp_path_factory.mktemp("served"))
    write_hours(project.folder / "hours.csv", first=0, count=400)
    write_hours(project.folder / "later.csv", first=400, count=150)
    with connect_home(Home(project.home)) as client:
        training = commit("hours", project.folder / "hours.csv", client=client)
        holdout = commit("hours-holdout", project.folder / "later.csv", client=client)
        versions = [train(client, job(seed, training.id, holdout.id)) for seed in (1, 2)]
        client.perform("gate.evaluate", EvaluateGate(version=versions[0].id), GateReport)
        make = CreateDeployment(name="demand", model="demand")
        client.perform("deployment.create", make, DeploymentView)
        begin = StartRelease(deployment="demand", version=versions[0].id)
        client.perform("release.start", begin, ReleaseView)
    return project


def is_running(pid: int) -> bool:
    """Tell whether a process runs; one that nobody has waited for does not."""
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def job(seed: int, training: Id, holdout: Id) -> TrainingJob:
    return TrainingJob(
        key=str(seed),
        pipeline="story_training:train",
        model="demand",
        target="cnt",
        task="regression",
        training=training,
        holdout=holdout,
        time_column="at",
        seed=seed,
    )


@pytest.fixture(scope="class")
def serving(trained: Project) -> Iterator[tuple[Project, httpx.Client]]:
    """The project, up and answering, with a client that may ask."""
    token = trained.json("token", "create", "caller", "--scope", "prediction:predict")["secret"]
    with trained.up("--port", "0"):
        wait_for(
            lambda: httpx.get(f"{trained.serving()['url']}/readyz").status_code == 200, "ready"
        )
        headers = {"Authorization": f"Bearer {token}"}
        with httpx.Client(base_url=trained.serving()["url"], headers=headers) as client:
            wait_for(lambda: ask(client).status_code == 200, "the token is known")
            yield trained, client


def ask(client: httpx.Client, at: str = "2026-02-01T00:00:00Z") -> httpx.Response:
    return client.post("/predict", json={"inputs": [{"temperature": 20.0, "hour": 8}], "at": at})


class TestServing:
    """One control plane serves them all."""

    def test_a_deployment_says_where_it_answers(
        self, serving: tuple[Project, httpx.Client]
    ) -> None:
        project, _ = serving

        shown = project.run("release", "deployment", "demand").stdout

        assert f"{project.serving()['url']}/predict" in shown

    def test_an_answer_is_sealed_and_can_be_shown_with_its_proof(
        self,
        serving: tuple[Project, httpx.Client],
    ) -> None:
        project, client = serving

        answered = ask(client).json()["predictions"][0]

        assert 200 < answered["output"] < 280
        wait_for(
            lambda: project.json("predictions", "show", answered["id"]), "the answer is sealed"
        )
        shown = project.json("predictions", "show", answered["id"])
        assert answered["output"] == shown["row"]["output"]
        assert shown["segment"]["root"] == shown["proof"]["root"]

    def test_labels_from_a_file_are_joined_by_prediction_id(
        self,
        serving: tuple[Project, httpx.Client],
    ) -> None:
        project, client = serving
        key = ask(client).json()["predictions"][0]["id"]
        wait_for(lambda: project.json("predictions", "show", key), "the answer is sealed")
        (project.folder / "labels.csv").write_text(f"prediction,value\n{key},228.5\n")

        receipt = project.json("feedback", "add", "labels.csv")

        assert (1, []) == (receipt["joined"], receipt["unknown"])
        assert 228.5 == project.json("predictions", "show", key)["label"]

    def test_a_killed_serving_process_is_started_again_on_its_port(
        self,
        serving: tuple[Project, httpx.Client],
    ) -> None:
        project, client = serving
        before = project.serving()

        for _ in range(3):
            os.kill(project.serving()["pid"], signal.SIGKILL)
            wait_for(lambda: ask(client).status_code == 200, "it answers again")

        assert before["pid"] != project.serving()["pid"]
        assert before["url"] == project.serving()["url"]

    def test_a_revoked_token_is_refused_by_the_serving_process(
        self,
        serving: tuple[Project, httpx.Client],
    ) -> None:
        project, client = serving
        made = project.json("token", "create", "short", "--scope", "*:predict")
        headers = {"Authorization": f"Bearer {made['secret']}"}
        body = {"inputs": [{"temperature": 20.0, "hour": 8}]}
        url = f"{str(client.base_url).rstrip('/')}/predict"
        wait_for(lambda: httpx.post(url, json=body, headers=headers).status_code == 200, "known")

        project.run("token", "revoke", made["id"], "--yes")

        wait_for(lambda: httpx.post(url, json=body, headers=headers).status_code == 401, "refused")
        assert 401 == httpx.post(url, json=body).status_code

    def test_a_rollback_on_the_command_line_moves_the_traffic_at_once(
        self,
        serving: tuple[Project, httpx.Client],
    ) -> None:
        project, client = serving
        first = ask(client).json()["predictions"][0]["version"]
        evaluated = project.run("gate", "evaluate", "demand@2", "--json", check=False)
        assert evaluated.returncode in {0, 6}
        if evaluated.returncode == 6:
            waived = ("gate", "waive", "demand@2", "--why", "A story needs it.", "--yes")
            project.run(*waived)
        project.run("release", "start", "demand", "demand@2", "--strategy", "all_at_once")
        wait_for(
            lambda: ask(client).json()["predictions"][0]["version"] != first,
            "the new version answers",
        )

        project.run("rollback", "demand", "--yes", "--reason", "The story says so.")

        wait_for(
            lambda: ask(client).json()["predictions"][0]["version"] == first, "the old one answers"
        )
        moves = project.json("models", "history", "demand")["items"]
        assert "The story says so." == moves[0]["move"]["why"]


def test_a_serving_process_outlives_a_killed_control_plane_and_is_taken_over(
    trained: Project,
) -> None:
    with trained.up("--port", "0") as process:
        wait_for(
            lambda: httpx.get(f"{trained.serving()['url']}/readyz").status_code == 200, "ready"
        )
        before = trained.serving()
        process.kill()
        process.wait()
    assert 200 == httpx.get(f"{before['url']}/readyz").status_code

    with trained.up("--port", "0"):
        wait_for((trained.home / "server.json").exists, "up")
        assert before["pid"] == trained.serving()["pid"]
        folder = str(trained.home / "serve")
        running = [
            process.pid
            for process in psutil.process_iter(["cmdline"])
            if folder in (process.info["cmdline"] or ())
        ]

    assert [before["pid"]] == running
    assert not is_running(before["pid"])


def test_no_acknowledged_label_is_lost_whoever_is_killed(trained: Project) -> None:
    secret = trained.json("token", "create", "teller", "--scope", "prediction:predict")["secret"]
    headers = {"Authorization": f"Bearer {secret}"}
    row = {"temperature": 20.0, "hour": 8}
    with trained.up("--port", "0") as process:
        wait_for((trained.home / "serve" / "server.json").exists, "it serves")
        with httpx.Client(base_url=trained.serving()["url"], headers=headers) as client:
            wait_for(lambda: ask(client).status_code == 200, "the token is known")
            ids = []
            for number in range(4):
                body = {"inputs": [row, row], "keys": [f"spare-{number}", f"order-{number}"]}
                ids.append(client.post("/predict", json=body).json()["predictions"][1]["id"])
            for number in range(4):
                if number == 2:
                    os.kill(trained.serving()["pid"], signal.SIGKILL)
                    wait_for(lambda: ask(client).status_code == 200, "it answers again")
                label = {"key": f"order-{number}", "value": 200.0 + number}
                told = client.post("/feedback", json=label)
                assert (202, {"accepted": 1}) == (told.status_code, told.json())
        os.kill(trained.serving()["pid"], signal.SIGKILL)
        process.kill()
        process.wait()

    with trained.up("--port", "0"):
        wait_for(lambda: is_labelled(trained, ids[-1]), "the labels are joined")
        labels = [trained.json("predictions", "show", key)["label"] for key in ids]

    assert [200.0, 201.0, 202.0, 203.0] == labels


def is_labelled(project: Project, key: str) -> bool:
    done = project.run("predictions", "show", key, "--json", check=False)
    return done.returncode == 0 and json.loads(done.stdout)["label"] is not None


def test_a_second_control_plane_on_the_same_folder_is_refused(trained: Project) -> None:
    with trained.up("--port", "0", "--no-serve", "--no-loop"):
        second = trained.run("up", "--port", "0", check=False)

    assert 5 == second.returncode
    assert "runs already" in second.stderr
    assert "hint:" in second.stderr


def test_a_stopped_control_plane_leaves_no_address(trained: Project, tmp_path: Path) -> None:
    with trained.up("--port", "0", "--no-serve", "--no-loop") as process:
        told = json.loads((trained.home / "server.json").read_text())

    assert 0 == process.returncode
    assert not (trained.home / "server.json").exists()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{told['url']}/healthz")
