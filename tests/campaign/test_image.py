"""The folder of `everloop export image`, built by buildah, run, and asked.

Needs root, buildah, a base image and a package index. ``EVERLOOP_CAMPAIGN_IMAGE_BASE`` names
another base, in any way that `buildah pull` takes (``oci-archive:base.tar``); its Python has to be
that of the export, which ``EVERLOOP_CAMPAIGN_IMAGE_PYTHON`` names.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from everloop.export.folder import write_folder
from everloop.export.image import Recipe, image_files
from everloop.export.model import LOG_PLACE, USER
from tests.unit.export.exported import subject
from tests.unit.serve.served import ROW, wait_until

pytestmark = pytest.mark.campaign
BASE = os.environ.get("EVERLOOP_CAMPAIGN_IMAGE_BASE")
PYTHON = os.environ.get("EVERLOOP_CAMPAIGN_IMAGE_PYTHON", "3.11")
# What these run is the host's kernel with another root: enough to build and ask without a daemon.
CHROOT = ("--isolation", "chroot")


@dataclass
class Buildah:
    """The builder, with a store of its own."""

    store: Path

    def command(self, *arguments: str) -> list[str]:
        places = ("--root", str(self.store / "root"), "--runroot", str(self.store / "run"))
        return ["buildah", *places, "--storage-driver", "vfs", *arguments]

    def do(self, *arguments: str, limit_s: float = 900) -> subprocess.CompletedProcess[str]:
        command = self.command(*arguments)
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=limit_s)

    def must(self, *arguments: str) -> str:
        done = self.do(*arguments)
        assert 0 == done.returncode, done.stdout[-2_000:] + done.stderr[-4_000:]
        return done.stdout.strip()


@pytest.fixture
def buildah(tmp_path: Path) -> Iterator[Buildah]:
    if shutil.which("buildah") is None or os.geteuid() != 0:
        pytest.skip("NOT TRIED: the image is built by buildah, as root, and one of them is missing")
    made = Buildah(tmp_path / "store")
    yield made
    made.do("rm", "--all")
    made.do("rmi", "--all", "--force")


def base_image(buildah: Buildah, usual: str) -> str:
    """Return the id of the base; without one the image cannot be tried here."""
    done = buildah.do("pull", "--quiet", BASE or usual, limit_s=300)
    if done.returncode != 0 and BASE is None:
        pytest.skip(f"NOT TRIED: {usual} cannot be had: {done.stderr.strip()[-300:]}")
    assert 0 == done.returncode, done.stderr
    return done.stdout.split()[-1]


@contextmanager
def running(buildah: Buildah, container: str, entry: list[str]) -> Iterator[tuple[str, set[int]]]:
    """Run the image as it says; give the server's address, and the users of its processes."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    told = ("--env", f"PORT={port}", "--env", "EVERLOOP_HOST=127.0.0.1")
    process = subprocess.Popen(buildah.command("run", *CHROOT, *told, container, "--", *entry))
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
            wait_until(lambda: process.poll() is not None or answers(client), seconds=120)
        assert process.poll() is None, f"the server ended with {process.returncode}"
        yield str(client.base_url), {user for each in servers(process) for user in each.uids()}
    finally:
        # The first of them is the one that the image starts; the builder ends with it.
        for each in servers(process)[:1]:
            each.terminate()
        process.wait(60)


def servers(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    family = psutil.Process(process.pid).children(recursive=True)
    return [each for each in family if "/opt/everloop/bin/everloop-serve" in each.cmdline()]


def answers(client: httpx.Client) -> bool:
    try:
        return client.get("/readyz").is_success
    except httpx.TransportError:
        return False


def test_the_image_builds_runs_without_rights_answers_and_tells_its_health(
    buildah: Buildah, tmp_path: Path
) -> None:
    sealed = subject(tmp_path)
    recipe = Recipe(
        subject=sealed, formats=("lightgbm",), public_key=sealed.public_key, python=PYTHON
    )
    write_folder(tmp_path / "image", image_files(recipe))
    base = base_image(buildah, recipe.base_image)

    build = ("bud", *CHROOT, "--format", "docker", "--build-arg", f"BASE={base}")
    buildah.must(*build, "--tag", "bikes:test", str(tmp_path / "image"))

    told: dict[str, Any] = json.loads(buildah.must("inspect", "--type", "image", "bikes:test"))
    config = told["Docker"]["config"]
    assert f"{USER}:0" == config["User"]
    assert [LOG_PLACE] == list(config["Volumes"])
    assert ["everloop-serve"] == config["Entrypoint"]
    probe = config["Healthcheck"]["Test"]
    assert "CMD" == probe[0]

    container = buildah.must("from", "bikes:test")
    with running(buildah, container, config["Entrypoint"]) as (url, users):
        reply = httpx.post(f"{url}/v1/predict", json={"inputs": [ROW]})
        port = f"PORT={httpx.URL(url).port}"
        healthy = buildah.do("run", *CHROOT, "--env", port, container, "--", *probe[1:])
    ill = buildah.do("run", *CHROOT, "--env", port, container, "--", *probe[1:])

    assert 200 == reply.status_code, reply.text
    expected = sealed.bundle.golden[0].expected
    assert expected == pytest.approx(reply.json()["predictions"][0]["output"])
    assert {int(USER)} == users
    assert (0, 1) == (healthy.returncode, ill.returncode), healthy.stderr + ill.stderr
