"""MLflow's REST interface over a kernel in memory, asked with plain HTTP and JSON."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from everloop.core.ports import BlobStore
from everloop.interop.mlflow import make_mlflow_app
from everloop.interop.mlflow.access import Access
from everloop.kernel.authz import Role
from everloop.kernel.tokens import CreateToken, NewToken
from tests.kit import PROJECT, World, world

API = "/api/2.0/mlflow"
FILES = "/api/2.0/mlflow-artifacts/artifacts"
COLUMNS = (
    '[{"type": "double", "name": "a", "required": true},'
    ' {"type": "double", "name": "b", "required": true}]'
)
MLMODEL = f"""\
flavors:
  lightgbm:
    data: model.lgb
signature:
  inputs: '{COLUMNS}'
  outputs: '[{{"type": "tensor", "tensor-spec": {{"dtype": "float64", "shape": [-1]}}}}]'
"""


@dataclass
class Wire:
    """A client with a token, and the world behind the server."""

    here: World
    client: httpx.AsyncClient
    loop: asyncio.Runner
    token: str

    def close(self) -> None:
        """End the client and its event loop."""
        self.loop.run(self.client.aclose())
        self.loop.close()

    def ask(
        self, method: str, path: str, body: Mapping[str, object] | None = None, /, **query: object
    ) -> httpx.Response:
        """Send a request below the interface's address."""
        return self.send(
            method,
            path if path.startswith("/") else f"{API}/{path}",
            content=None if body is None else json.dumps(body),
            params={key: str(value) for key, value in query.items()} or None,
        )

    def get(self, path: str, /, **query: object) -> Any:
        """Ask a question that must be answered."""
        return self._read(self.ask("GET", path, **query))

    def post(self, path: str, /, **body: object) -> Any:
        """Change something; it must succeed."""
        return self._read(self.ask("POST", path, body))

    def patch(self, path: str, /, **body: object) -> Any:
        """Change something; it must succeed."""
        return self._read(self.ask("PATCH", path, body))

    def put_file(self, address: str, data: bytes) -> httpx.Response:
        """Send a file."""
        return self.send("PUT", f"{FILES}/{address}", content=data)

    def get_file(self, address: str) -> httpx.Response:
        """Ask for a file."""
        return self.send("GET", f"{FILES}/{address}")

    def run(self, **body: object) -> str:
        """Start a run and return its id."""
        made = self.post("runs/create", experiment_id="0", **body)
        return str(made["run"]["info"]["run_id"])

    def logged(self, files: Mapping[str, bytes], *, run: str = "", name: str = "model") -> Any:
        """Log a model as a client of MLflow 3 does; return it."""
        run = run or self.run()
        model = self.post("logged-models", experiment_id="0", name=name, source_run_id=run)
        info = model["model"]["info"]
        address = info["artifact_uri"].removeprefix("mlflow-artifacts:/")
        for path, data in files.items():
            assert self.put_file(f"{address}/{path}", data).status_code == 200
        done = self.patch(f"logged-models/{info['model_id']}", status="LOGGED_MODEL_READY")
        return done["model"]["info"]

    def registered(self, name: str, files: Mapping[str, bytes], **more: object) -> Any:
        """Log a model and register it; return the version."""
        info = self.logged(files)
        if self.ask("GET", "registered-models/get", name=name).status_code == 404:
            self.post("registered-models/create", name=name)
        source = f"models:/{info['model_id']}"
        return self.post(
            "model-versions/create", name=name, source=source, model_id=info["model_id"], **more
        )["model_version"]

    def send(
        self, method: str, path: str, *, headers: Mapping[str, str] | None = None, **told: Any
    ) -> httpx.Response:
        """Send a request as it is, with the token."""
        own = {"Authorization": f"Bearer {self.token}", **(headers or {})}
        return self.loop.run(self.client.request(method, path, headers=own, **told))

    def _read(self, response: httpx.Response) -> Any:
        assert response.status_code == 200, response.text
        return response.json()


@contextmanager
def wire(blobs: BlobStore | None = None, role: Role = Role.ADMIN) -> Iterator[Wire]:
    """Give a client of a fresh world with the rights of a role."""
    here = world(blobs=blobs)
    app = make_mlflow_app(Access(here.kernel, PROJECT), here.kernel.services.ids.new)
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    client = httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1")
    made = Wire(here, client, asyncio.Runner(), token(here, role))
    try:
        yield made
    finally:
        made.close()


def token(here: World, role: Role) -> str:
    """Return a token of a person with one role."""
    name = f"a-{role.value}"
    here.person(name, role)
    made = here.instance(CreateToken(name="t", actor=name), "token.create")
    assert isinstance(made, NewToken)
    return made.secret
