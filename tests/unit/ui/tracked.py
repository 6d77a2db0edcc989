"""A world of runs with something to see: curves, gaps, files, a live run, runs within a run."""

from __future__ import annotations

import io
import math
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from everloop.core.ids import Id
from everloop.track import columns
from everloop.track.verbs import (
    ArtifactFile,
    FinishRun,
    LogRun,
    MetricSeries,
    RunFinished,
    RunLogged,
    RunStarted,
    StartRun,
)
from tests.kit import World, world
from tests.unit.ui.filled import Reader, app_of, session_of

MODELS = ("xgboost", "lightgbm", "ridge")
HOSTILE = (
    "<script>parent.document.title='owned';document.cookie='owned=1'</script>"
    "<p>Report</p><img src=x onerror=\"parent.document.title='owned'\">"
)
SVG = (
    "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 40 20'><script>document.cookie='o=1'"
    "</script><circle cx='10' cy='10' r='8' fill='teal' onload='alert(1)'/></svg>"
)


@dataclass
class Tracked:
    """A project with some tens of runs."""

    count: int = 24
    text: str = ""
    world: World = field(default_factory=world)
    runs: list[Id] = field(default_factory=list)
    live: Id = Id("")  # noqa: RUF009 -- a text

    def __post_init__(self) -> None:
        for number in range(self.count):
            self.runs.append(self._sweep(number))
        self.live = self.start("still training", {"model": "mlp", "rate": "0.003"})
        self.log(self.live, {"loss": curve(40, 0.9), "accuracy": curve(40, 0.2)})

    def reader(self) -> Reader:
        """Return a logged-in owner."""
        return Reader(app_of(self.world.kernel), session_of(self.world))

    def start(
        self,
        name: str,
        params: Mapping[str, str] | None = None,
        *,
        experiment: str = "demand",
        parent: Id | None = None,
    ) -> Id:
        """Begin a run and return its id."""
        self.world.clock.push(minutes=7)
        run = self.world.kernel.services.ids.new()
        environment = self.world.blobs.put(msgspec.json.encode(captured(len(self.runs))))
        ask = StartRun(
            run=run,
            name=name,
            experiment=experiment,
            params=dict(params or {}),
            tags={"team": "forecast", "note": self.text} if self.text else {"team": "forecast"},
            parent=parent,
            environment=environment,
            code_commit="4f2a9c1d7b" * 4,
        )
        self.world.owner.perform("run.start", ask, RunStarted)
        return run

    def log(self, run: Id, metrics: Mapping[str, Mapping[int, float]]) -> None:
        """Log points, ten seconds a step."""
        began = int(self.world.clock.now().timestamp() * 1e6)
        series = tuple(
            MetricSeries(
                key=key,
                data=columns.encode(
                    columns.to_columns(
                        list(points), [began + s * 10_000_000 for s in points], [*points.values()]
                    )
                ),
            )
            for key, points in metrics.items()
        )
        self.world.owner.perform("run.log", LogRun(run=run, metrics=series), RunLogged)

    def keep(self, run: Id, files: Mapping[str, bytes]) -> None:
        """Keep files of a run."""
        kept = tuple(
            ArtifactFile(path=path, digest=self.world.blobs.put(data), size_bytes=len(data))
            for path, data in files.items()
        )
        self.world.owner.perform("run.log", LogRun(run=run, artifacts=kept), RunLogged)

    def finish(self, run: Id, **more: object) -> None:
        """End a run."""
        ask = msgspec.convert({"run": run} | more, FinishRun)
        self.world.owner.perform("run.finish", ask, RunFinished)

    def _sweep(self, number: int) -> Id:
        rate, depth = 0.001 * 2 ** (number % 6), 3 + number % 5
        params = {
            "model": MODELS[number % 3],
            "rate": f"{rate:g}",
            "depth": str(depth),
            "seed": "7",
        }
        run = self.start(f"{MODELS[number % 3]} {number} {self.text}".strip(), params)
        quality = 0.3 + 0.06 * (number % 7) + 0.02 * depth
        loss = curve(200, 1.2 - quality)
        if number % 8 == 3:
            loss |= dict.fromkeys(range(90, 120), math.nan)
        self.log(
            run,
            {
                "loss": loss,
                "accuracy": {step: quality * (1 - math.exp(-step / 40)) for step in range(200)},
                "mae": {199: 40 - 30 * quality},
                "system/cpu": {step: 50 + 40 * math.sin(step / 9) for step in range(60)},
            },
        )
        if number < 2:
            self.keep(
                run, FILES | {f"notes/{self.text or 'plain'}.txt": self.text.encode() or b"-"}
            )
        self.world.clock.push(minutes=3 + number)
        if number % 11 == 10:
            self.finish(run, status="failed", error="ValueError: the learning rate diverged")
        else:
            self.finish(run)
        return run


def curve(steps: int, floor: float) -> dict[int, float]:
    """Return something like a loss."""
    return {
        step: floor + math.exp(-step / 30) + 0.04 * math.sin(step * 1.7) * math.cos(step * 0.3)
        for step in range(steps)
    }


def captured(number: int) -> dict[str, object]:
    """Return an environment as a client captures it."""
    return {
        "code": {"commit": "4f2a9c1d7b" * 4, "branch": "main", "patch": None},
        "lock": {"name": "uv.lock", "digest": "blake3:" + "ab" * 32},
        "python": "3.11.2",
        "implementation": "CPython",
        "platform": "Linux-6.1",
        "machine": "x86_64",
        "cpus": 8,
        "memory_bytes": 32_000_000_000,
        "command": ["train.py", "--rate", str(number)],
        "variables": {"PYTHONHASHSEED": "0"},
        "packages": ["numpy==2.1.0", f"xgboost==3.{number % 2}.0", "pyarrow==18.0.0"],
    }


def png() -> bytes:
    """Return a small picture."""
    width, height = 96, 48
    rows = b"".join(
        b"\0" + bytes(v for x in range(width) for v in (40 + x, 90 + 2 * y, 180))
        for y in range(height)
    )

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def parquet(rows: int = 250) -> bytes:
    """Return a table as Parquet."""
    table = pa.table(
        {
            "hour": list(range(rows)),
            "demand": [math.sin(i) for i in range(rows)],
            "none": [None] * rows,
        }
    )
    file = io.BytesIO()
    pq.write_table(table, file, row_group_size=60)
    return file.getvalue()


FILES: dict[str, bytes] = {
    "environment/uncommitted.patch": b"diff --git a/train.py b/train.py\n@@ -1 +1 @@\n"
    b"-rate = 1\n+rate = '<b>2</b>'\n same\n",
    "model/MLmodel": b"flavors:\n  python_function:\n    loader_module: mlflow.sklearn\n",
    "model/model.bin": bytes(range(256)) * 8,
    "plots/demand.png": png(),
    "plots/shape.svg": SVG.encode(),
    "report.html": HOSTILE.encode(),
    "tables/hours.parquet": parquet(),
    "tables/hours.csv": b"hour,demand,comment\n"
    + b"".join(f'{i},{i * 1.5},"a, b <b>{i}</b>"\n'.encode() for i in range(230)),
    "tables/split.json": b'{"columns":["a","b"],"data":[[1,"<b>x</b>"],[2,null]]}',
    "config.json": b'{"rate":0.1,"deep":{"list":[1,2,3]}}',
    "README.md": "# Model\nPlain <b>text</b>, with an umlaut: ä\n".encode(),
}
