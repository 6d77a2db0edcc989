"""Reads an MLflow server over its REST interface; MLflow itself is not needed here.

Works with servers of MLflow 2 and 3, and with anything that answers like one. User and password, or
a token, come from the variables that MLflow's own client reads.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import numpy as np

from everloop.core.errors import InvalidInput, NotAuthenticated, Unavailable
from everloop.interop.importers.mlflow_logged import to_logged_model
from everloop.interop.importers.mlflow_sql import COMMIT, PARENT, STATUSES, without_secrets
from everloop.interop.importers.source import (
    Contents,
    Skip,
    SourceExperiment,
    SourceFile,
    SourceInput,
    SourceLoggedModel,
    SourceModel,
    SourceRun,
    SourceVersion,
)
from everloop.interop.importers.times import UNKNOWN, at_ms
from everloop.track.columns import Columns
from everloop.track.model import RunStatus

TIMEOUT_S = 120.0
RUNS_A_PAGE = 1_000
POINTS_A_PAGE = 25_000
API = "/api/2.0/mlflow"
FILES = "/api/2.0/mlflow-artifacts/artifacts"
Json = dict[str, Any]


class MlflowServer:
    """The records that a server holds."""

    system = "mlflow"

    def __init__(self, url: str) -> None:
        """Connect to a server.

        Raises:
            InvalidInput: ``import.source_invalid`` when no MLflow answers there.
            NotAuthenticated: ``import.source_denied``.
            Unavailable: ``import.source_unavailable``.
        """
        self.place = without_secrets(url)
        parts = urlsplit(url)
        user, password = parts.username, parts.password
        token = os.environ.get("MLFLOW_TRACKING_TOKEN")
        user = user or os.environ.get("MLFLOW_TRACKING_USERNAME")
        password = password or os.environ.get("MLFLOW_TRACKING_PASSWORD")
        self._http = httpx.Client(
            base_url=self.place.rstrip("/"),
            timeout=TIMEOUT_S,
            trust_env=False,
            auth=(user, password or "") if user else None,
            headers={"Authorization": f"Bearer {token}"} if token and not user else {},
        )
        self._names: dict[str, str] = {}
        self._models: dict[str, str] = {}
        self._all = self._list_experiments()

    def close(self) -> None:
        """Close the connections; idempotent."""
        self._http.close()

    def experiments(self) -> list[SourceExperiment]:
        """Return all experiments."""
        return [
            SourceExperiment(
                id=item["experiment_id"],
                name=item["name"],
                tags=_pairs(item.get("tags")),
                is_deleted=item.get("lifecycle_stage") == "deleted",
            )
            for item in self._all
        ]

    def runs(self) -> list[SourceRun]:
        """Return the heads of all runs."""
        found: list[SourceRun] = []
        for item in self._all:
            ask = {
                "experiment_ids": [item["experiment_id"]],
                "run_view_type": "ALL",
                "max_results": RUNS_A_PAGE,
            }
            for run in self._pages("POST", "runs/search", ask, "runs"):
                found.append(self._run(run, item))
        return found

    def logged_models(self) -> list[SourceLoggedModel]:
        """Return the models that runs wrote; MLflow 2 has none."""
        found: list[SourceLoggedModel] = []
        for item in self._all:
            ask = {"experiment_ids": [item["experiment_id"]], "max_results": 50}
            if (
                not found
                and not self._http.post(f"{API}/logged-models/search", json=ask).is_success
            ):
                continue  # of MLflow 2
            for model in self._pages("POST", "logged-models/search", ask, "models"):
                found.append(to_logged_model(model, item["name"], self._handed_out))
        return found

    def _handed_out(self, uri: str) -> Iterable[SourceFile]:
        if uri.startswith("mlflow-artifacts:"):
            return self._served(urlsplit(uri).path.strip("/"), "")
        message = f"its files are at {uri}, which the server does not hand out"
        raise Skip(message)

    def models(self) -> list[SourceModel]:
        """Return all registered models."""
        found = []
        for item in self._pages("GET", "registered-models/search", {"max_results": 100},
                                "registered_models"):  # fmt: skip
            name = item["name"]
            quoted = name.replace("'", "\\'")
            ask = {"filter": f"name='{quoted}'", "max_results": 1_000}
            versions = self._pages("GET", "model-versions/search", ask, "model_versions")
            found.append(
                SourceModel(
                    name=name,
                    versions=tuple(
                        sorted(map(self._version, versions), key=lambda version: version.number)
                    ),
                    description=item.get("description") or "",
                    tags=_pairs(item.get("tags")),
                    aliases={
                        alias["alias"]: int(alias["version"]) for alias in item.get("aliases", ())
                    },
                )
            )
        return found

    def _list_experiments(self) -> list[Json]:
        ask = {"view_type": "ALL", "max_results": 1_000}
        return list(self._pages("POST", "experiments/search", ask, "experiments"))

    def _run(self, run: Json, experiment: Json) -> SourceRun:
        info, data = run["info"], run.get("data", {})
        tags = _pairs(data.get("tags"))
        key = info.get("run_id") or info["run_uuid"]
        return SourceRun(
            id=key,
            experiment=experiment["name"],
            name=info.get("run_name") or tags.get("mlflow.runName") or key,
            status=STATUSES.get(str(info.get("status")), RunStatus.KILLED),
            started_at=at_ms(_whole(info.get("start_time"))) or UNKNOWN,
            ended_at=at_ms(_whole(info.get("end_time"))),
            read=partial(self._contents, run),
            files=partial(self._files, key, str(info.get("artifact_uri") or "")),
            parent=tags.get(PARENT),
            code_commit=tags.get(COMMIT),
            is_deleted="deleted"
            in {info.get("lifecycle_stage"), experiment.get("lifecycle_stage")},
        )

    def _contents(self, run: Json) -> Contents:
        data = run.get("data", {})
        key = run["info"].get("run_id") or run["info"]["run_uuid"]
        keys = [metric["key"] for metric in data.get("metrics", ())]
        return Contents(
            params=_pairs(data.get("params")),
            tags=_pairs(data.get("tags")),
            metrics={name: self._history(key, name) for name in keys},
            inputs=tuple(map(_input, run.get("inputs", {}).get("dataset_inputs", ()))),
        )

    def _history(self, run: str, key: str) -> Columns:
        ask = {"run_id": run, "metric_key": key, "max_results": POINTS_A_PAGE}
        points = list(self._pages("GET", "metrics/get-history", ask, "metrics"))
        points.sort(key=lambda point: (_whole(point.get("timestamp")), _whole(point.get("step"))))
        return Columns(
            np.array([_whole(point.get("step")) for point in points], dtype=np.int64),
            np.array([_whole(point.get("timestamp")) for point in points], dtype=np.int64) * 1000,
            np.array([_number(point.get("value")) for point in points], dtype=np.float64),
        )

    def _files(self, run: str, uri: str) -> Iterator[SourceFile]:
        if not uri.startswith("mlflow-artifacts:"):
            yield from self._run_files(run, "")
            return
        yield from self._served(urlsplit(uri).path.strip("/"), "")
        ask = {"experiment_ids": [], "filter": f"source_run_id = '{run}'"}
        for model in self._logged(run, ask):
            info = model["info"]
            place = urlsplit(str(info.get("artifact_uri"))).path.strip("/")
            for file in self._served(place, ""):
                name = info.get("name") or info["model_id"]
                yield SourceFile(f"{name}/{file.path}", file.size_bytes, fetch=file.fetch)

    def _logged(self, run: str, ask: Json) -> Iterator[Json]:
        found = self._send("GET", f"{API}/runs/get", params={"run_id": run}).json()["run"]
        experiment = found["info"]["experiment_id"]
        response = self._http.post(
            f"{API}/logged-models/search", json=ask | {"experiment_ids": [experiment]}
        )
        if response.is_success:  # MLflow 2 has none
            yield from response.json().get("models", ())

    def _run_files(self, run: str, folder: str) -> Iterator[SourceFile]:
        """List a run's files where the server resolves their place; read them through it."""
        ask = {"run_id": run} | ({"path": folder} if folder else {})
        for item in self._pages("GET", "artifacts/list", ask, "files"):
            if item.get("is_dir"):
                yield from self._run_files(run, item["path"])
            else:
                address = f"/get-artifact?path={quote(item['path'])}&run_id={run}"
                yield SourceFile(item["path"], _size(item), fetch=partial(self._stream, address))

    def _served(self, root: str, folder: str) -> Iterator[SourceFile]:
        response = self._send("GET", FILES, params={"path": f"{root}/{folder}".strip("/")})
        for item in response.json().get("files", ()):
            name = str(item["path"]).rpartition("/")[2]
            path = f"{folder}/{name}".strip("/")
            if item.get("is_dir"):
                yield from self._served(root, path)
            else:
                address = f"{FILES}/{quote(f'{root}/{path}')}"
                yield SourceFile(path, _size(item), fetch=partial(self._stream, address))

    def _stream(self, address: str) -> Iterator[bytes]:
        try:
            with self._http.stream("GET", address) as response:
                if response.is_error:
                    message = f"the server refuses {address}: {response.status_code}"
                    raise Skip(message)
                yield from response.iter_bytes()
        except httpx.HTTPError as error:
            raise self._unavailable(error) from error

    def _version(self, item: Json) -> SourceVersion:
        stage = item.get("current_stage") or ""
        return SourceVersion(
            number=int(item["version"]),
            run=item.get("run_id") or None,
            created_at=at_ms(_whole(item.get("creation_timestamp"))) or UNKNOWN,
            files=partial(self._version_files, item),
            description=item.get("description") or "",
            tags=_pairs(item.get("tags")),
            stage="" if stage == "None" else stage,
        )

    def _version_files(self, item: Json) -> Iterable[SourceFile]:
        ask = {"name": item["name"], "version": item["version"]}
        found = self._send("GET", f"{API}/model-versions/get-download-uri", params=ask).json()
        uri = str(found.get("artifact_uri") or "")
        if uri.startswith("models:/"):
            model = self._send("GET", f"{API}/logged-models/{uri.removeprefix('models:/')}").json()
            uri = str(model["model"]["info"]["artifact_uri"])
        return self._handed_out(uri)

    def _pages(self, method: str, path: str, ask: Json, field: str) -> Iterator[Json]:
        token: str | None = None
        while True:
            given = ask | ({"page_token": token} if token else {})
            sent: Json = {"json": given} if method == "POST" else {"params": given}
            page = self._send(method, f"{API}/{path}", **sent).json()
            yield from page.get(field, ())
            token = page.get("next_page_token")
            if not token:
                return

    def _send(self, method: str, path: str, **given: Any) -> httpx.Response:
        try:
            response = self._http.request(method, path, **given)
        except httpx.HTTPError as error:
            raise self._unavailable(error) from error
        if response.status_code in {401, 403}:
            raise NotAuthenticated(
                "import.source_denied",
                f"{self.place} does not let us in ({response.status_code}).",
                hint="Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or a token.",
            )
        if response.is_success and "json" in response.headers.get("content-type", ""):
            return response
        raise InvalidInput(
            "import.source_invalid",
            f"{self.place} answers {path} with {response.status_code}: {response.text[:200]!r}.",
            hint="Give the address that MLFLOW_TRACKING_URI has.",
        )

    def _unavailable(self, error: Exception) -> Unavailable:
        return Unavailable(
            "import.source_unavailable",
            f"{self.place} does not answer: {error}.",
            hint="Check the address and whether the server runs; the import can be repeated.",
        )


def _input(item: Json) -> SourceInput:
    data = item.get("dataset", {})
    return SourceInput(
        name=data.get("name", ""),
        digest=data.get("digest", ""),
        source_type=data.get("source_type") or "",
        source=data.get("source") or "",
        schema=data.get("schema") or "",
        profile=data.get("profile") or "",
        tags=_pairs(item.get("tags")),
    )


def _pairs(items: Any) -> dict[str, str]:
    return {str(item["key"]): str(item.get("value") or "") for item in items or ()}


def _whole(value: Any) -> int:
    return int(value or 0)


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _size(item: Json) -> int | None:
    size = item.get("file_size")
    return None if size is None else int(size)
