"""A server without a network: requests in, replies out, over real bundles and a real log."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from everloop.core.clock import SystemClock
from everloop.core.wire import PredictionRow, Scalar
from everloop.serve.addresses import all_routes
from everloop.serve.answer import Answerer
from everloop.serve.bundle import LoadedBundle
from everloop.serve.dispatch import Dispatcher
from everloop.serve.environment import Found
from everloop.serve.exchange import Reply, Request
from everloop.serve.identity import IdBlocks
from everloop.serve.lineup import Lineup
from everloop.serve.log import LogWriter, list_files, read_rows
from everloop.serve.protocol import InputField
from everloop.serve.runtime import Model, open_model
from everloop.serve.scoring import Scorer
from everloop.serve.service import Endpoint, Service
from tests.unit.serve.served import INPUTS, MODEL, make_bundle

REAL = open_model("lightgbm", {"model.txt": MODEL}, 4).predict
NUMBERS = (
    InputField(name="hour", dtype="int64", nullable=True),
    InputField(name="temperature", dtype="float64", nullable=True),
    InputField(name="working_day", dtype="bool"),
    InputField(name="weather", dtype="float64"),
)


class Board:
    """A line-up that stands still."""

    refused = ()

    def __init__(self, lineup: Lineup) -> None:
        self.lineup = lineup


def version(number: int, model: Model = REAL, **changes: object) -> Scorer:
    return Scorer(LoadedBundle(make_bundle(number, MODEL, **changes), model))


@dataclass
class Desk:
    folder: Path
    service: Service
    log: LogWriter

    def __post_init__(self) -> None:
        self.dispatcher = Dispatcher(all_routes(self.service, Found()), self.service.admit)

    def serve(self, name: str, *scorers: Scorer) -> Endpoint:
        """Serve versions under a name, the first of them as champion."""
        lineup = Lineup(
            epoch=1, deployment=name, champion=scorers[0] if scorers else None, resident=scorers
        )
        board: Any = Board(lineup)
        endpoint = Endpoint(name, board, Answerer(self.log, IdBlocks()), self.log)
        self.service.endpoints[name] = endpoint
        return endpoint

    def ask(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[bytes, bytes] | None = None,
    ) -> Reply:
        asked = Request(method=method, path=path, query="", headers=headers or {}, body=body)
        answer = self.dispatcher.handle(asked)
        if isinstance(answer, Reply):
            return answer

        async def finish() -> Reply:
            return await answer

        return asyncio.run(finish())

    def get(self, path: str) -> tuple[int, Any]:
        reply = self.ask("GET", path)
        return reply.status, json.loads(reply.body)

    def infer(self, inputs: Sequence[Any], path: str = "bikes", **more: Any) -> tuple[int, Any]:
        body = json.dumps({"inputs": inputs, **more}).encode()
        reply = self.ask("POST", f"/v2/models/{path}/infer", body)
        return reply.status, json.loads(reply.body)

    def rows(self) -> list[PredictionRow]:
        files = list_files(self.folder)
        return [row for file in files for row in read_rows(self.folder, file.name).rows]


def make_desk(folder: Path) -> Desk:
    made = Desk(folder, Service(SystemClock(), is_open=True), LogWriter(folder))
    made.serve("bikes", version(1))
    made.serve("plain", version(1, inputs=NUMBERS))
    return made


def tensor(name: str, datatype: str, data: Sequence[Scalar], **more: Any) -> dict[str, Any]:
    return {"name": name, "shape": [len(data), 1], "datatype": datatype, "data": data, **more}


def columns(**changes: Sequence[Scalar]) -> list[dict[str, Any]]:
    """One row as a tensor for each input."""
    values: dict[str, Sequence[Scalar]] = {
        "hour": [8],
        "temperature": [21.5],
        "working_day": [True],
        "weather": ["rain"],
    }
    kinds = {"int64": "INT64", "float64": "FP64", "bool": "BOOL", "string": "BYTES"}
    return [
        tensor(field.name, kinds[field.dtype], {**values, **changes}[field.name])
        for field in INPUTS
    ]


def answer_of(*row: float) -> float:
    return float(REAL(np.array([row]))[0])
