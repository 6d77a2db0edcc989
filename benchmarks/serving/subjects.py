"""The servers under measurement: ours, the peers and the limits, each with its own kind of request.

Every one answers with the same model. Peers lie in environments of their own in the cache folder,
made once. What each checks, logs and keeps differs; `Subject.does` says it in words.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import model
import numpy as np
from measure import Options, tell
from peers import Mlflow, Peer, find_environment, find_mlflow
from processes import Started, free_port, run_once, running

APPS = Path(__file__).with_name("apps")
START_LIMIT_S = 180.0
POLL_S = 0.002
UVICORN = ("uvicorn[standard]>=0.50,<1", "fastapi>=0.120,<1")
FRAMEWORK = ("lightgbm>=4.6,<5", "numpy>=2,<3")
# onnx 1.19 and newer refuse what onnxmltools makes of LightGBM's counts.
LIMITS = (
    *("granian>=2.8,<3", "onnxruntime>=1.22,<2", "msgspec>=0.20,<1"),
    *("onnxmltools>=1.14,<2", "onnx<1.19", "skl2onnx", *UVICORN, *FRAMEWORK),
)
ENVIRONMENTS: dict[str, tuple[str, ...]] = {
    "limits": LIMITS,
    "fastapi": (*UVICORN, *FRAMEWORK),
    "litserve": ("litserve>=0.2.19,<0.3", *FRAMEWORK),
    "bentoml": ("bentoml>=1.4.30,<2", *FRAMEWORK),
    "mlserver": ("mlserver>=1.7,<2", "mlserver-lightgbm>=1.7,<2"),
    "ray": ("ray[serve]>=2.50,<3", *FRAMEWORK),
}
ALONE = {"OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0", "BENTOML_DO_NOT_TRACK": "True"}
Body = Callable[[model.Matrix], bytes]
Reader = Callable[[bytes], Sequence[float]]


@dataclass(frozen=True)
class Subject:
    """One server.

    Attributes:
        kind: ``everloop``, ``peer`` or ``limit``.
        command: Its command line for a port.
        one: Makes the request for rows; also for the batch, unless ``batch`` is there.
        read: Takes the outputs out of an answer, to be compared with the framework's; None for
            an echo.
        does: In words, what it does besides answering.
    """

    name: str
    kind: str
    command: Callable[[int], list[str]]
    path: str
    ready: str
    one: Body
    read: Reader | None
    variables: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    does: str = "keeps nothing"


@dataclass(frozen=True)
class Running:
    """A server that answers."""

    subject: Subject
    process: Started
    port: int
    ready_s: float


@contextmanager
def started(subject: Subject, folder: Path) -> Iterator[Running]:
    """Run a server, from its start to its first right answer, for the length of the block.

    Raises:
        RuntimeError: it ends, does not answer in time, or answers otherwise than the framework.
    """
    port = free_port()
    body = subject.one(model.rows(1))
    begin = time.perf_counter()
    with running(subject.command(port), folder=folder, variables=subject.variables) as process:
        answer = _first_answer(subject, process, port, body)
        ready = time.perf_counter() - begin
        if subject.read is not None:
            _require_right(subject, answer)
        yield Running(subject, process, port, ready)


def _first_answer(subject: Subject, process: Started, port: int, body: bytes) -> bytes:
    deadline = time.perf_counter() + START_LIMIT_S
    while time.perf_counter() < deadline and process.is_running():
        status, answer = ask(port, subject.path, body, subject.headers)
        if status == 200:
            return answer
        if status not in {0, 404, 503, 500}:
            raise RuntimeError(f"{subject.name} answered {status}: {answer[:300]!r}")
        time.sleep(POLL_S)
    raise RuntimeError(f"{subject.name} does not answer:\n{process.said()[-2_000:]}")


def ask(port: int, path: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, bytes]:
    """Post once on a connection of its own; status 0 when there is nobody."""
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    kind = {"Content-Type": "application/json"}
    try:
        connection.request("POST", path, body, kind | dict(headers))
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, HTTPException):
        return 0, b""
    finally:
        connection.close()


def _require_right(subject: Subject, answer: bytes) -> None:
    assert subject.read is not None
    text = Path(subject.variables["TEXT"]).read_text()
    expected = model.answers(text, model.rows(1))
    found = np.asarray(subject.read(answer), dtype=np.float64).ravel()
    if not np.allclose(expected, found, rtol=1e-5, atol=1e-5):
        raise RuntimeError(f"{subject.name} answers {found} where {expected} is right")


def find_subjects(options: Options, folder: Path, ours: Sequence[Subject]) -> list[Subject]:
    """Return ours, then the limits, then the peers that can be had."""
    text = folder / "model.txt"
    if not text.exists():
        text.write_text(model.train())
    found = list(ours)
    if options.peer:
        found += _limits(options, folder, text)
        found += _peers(options, folder, text)
    return found


def _environment(options: Options, name: str, package: str) -> Peer | None:
    return find_environment(options, f"serving-{name}", package, ENVIRONMENTS[name])


def _limits(options: Options, folder: Path, text: Path) -> list[Subject]:
    at = _environment(options, "limits", "granian")
    if at is None:
        return []
    onnx = folder / "model.onnx"
    run_once([at.python, str(APPS / "to_onnx.py"), str(text), str(onnx)], folder=folder)
    granian = str(Path(at.python).with_name("granian"))

    def with_granian(target: str) -> Callable[[int], list[str]]:
        return lambda port: [
            *(granian, "--interface", "rsgi", "--host", "127.0.0.1", "--port", str(port)),
            *("--workers", "1", "--runtime-threads", "1", "--loop", "uvloop", "--no-ws"),
            *("--log-level", "warning", f"granian_onnx:{target}"),
        ]

    variables = {**at.variables, **ALONE, "TEXT": str(text), "PYTHONPATH": str(APPS)}
    scoring = {**variables, "MODEL": str(onnx)}
    return [
        _rows("granian, echo", "limit", with_granian("echo"), variables, read=None),
        _rows("granian + ONNX Runtime", "limit", with_granian("predict"), scoring),
        _rows("FastAPI + ONNX Runtime", "limit", _script(at, "fastapi_onnx.py"), scoring),
    ]


def _peers(options: Options, folder: Path, text: Path) -> list[Subject]:
    found = []
    for name, package, make in (
        ("fastapi", "fastapi", _fastapi),
        ("mlserver", "mlserver", _mlserver),
        ("litserve", "litserve", _litserve),
        ("bentoml", "bentoml", _bentoml),
        ("ray", "ray", _ray),
    ):
        at = _environment(options, name, package)
        if at is not None:
            variables = {**at.variables, **ALONE, "MODEL": str(text), "TEXT": str(text)}
            found.append(make(at, folder, variables))
    mlflow = find_mlflow(options)
    if mlflow is not None:
        found.insert(2, _mlflow(mlflow, folder, text))
    return found


def _fastapi(at: Peer, _folder: Path, variables: dict[str, str]) -> Subject:
    return _rows("FastAPI + predict", "peer", _script(at, "fastapi_framework.py"), variables)


def _litserve(at: Peer, _folder: Path, variables: dict[str, str]) -> Subject:
    return _rows(at.name, "peer", _script(at, "litserve_app.py"), variables)


def _bentoml(at: Peer, folder: Path, variables: dict[str, str]) -> Subject:
    program = str(Path(at.python).with_name("bentoml"))
    mine = variables | {"BENTOML_HOME": str(folder / "bentoml"), "PYTHONPATH": str(APPS)}
    return _rows(
        at.name,
        "peer",
        lambda port: [
            *(program, "serve", "bentoml_service:Predictor", "--working-dir", str(APPS)),
            *("--host", "127.0.0.1", "--port", str(port), "--api-workers", "1"),
        ],
        mine,
        read=json.loads,
    )


def _ray(at: Peer, folder: Path, variables: dict[str, str]) -> Subject:
    return _rows(f"Ray Serve {at.name.split()[-1]}", "peer", _script(at, "ray_app.py"), variables)


def _mlserver(at: Peer, folder: Path, variables: dict[str, str]) -> Subject:
    program = str(Path(at.python).with_name("mlserver"))

    def command(port: int) -> list[str]:
        home = folder / f"mlserver-{port}"
        home.mkdir()
        uri = {"uri": variables["MODEL"]}
        about = {"name": "bench", "implementation": "mlserver_lightgbm.LightGBMModel"}
        (home / "model-settings.json").write_text(json.dumps(about | {"parameters": uri}))
        settings = {
            "parallel_workers": 0,
            "host": "127.0.0.1",
            "http_port": port,
            "grpc_port": free_port(),
            "metrics_port": free_port(),
        }
        (home / "settings.json").write_text(json.dumps(settings))
        return [program, "start", str(home)]

    return Subject(
        name=at.name,
        kind="peer",
        command=command,
        path="/v2/models/bench/infer",
        ready="/v2/models/bench/ready",
        one=model.tensor,
        read=lambda answer: json.loads(answer)["outputs"][0]["data"],
        variables=variables,
    )


def _mlflow(peer: Mlflow, folder: Path, text: Path) -> Subject:
    target = folder / "mlflow-model"
    if not target.exists():
        peer.task("save_model", folder, text=str(text), target=str(target))
    return Subject(
        name=peer.name,
        kind="peer",
        command=lambda port: [
            *(peer.program, "models", "serve", "--model-uri", str(target)),
            *("--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)),
            *("--workers", "1"),
        ],
        path="/invocations",
        ready="/ping",
        one=model.split,
        read=lambda answer: json.loads(answer)["predictions"],
        variables={**peer.variables, **ALONE, "TEXT": str(text)},
    )


def _script(at: Peer, name: str) -> Callable[[int], list[str]]:
    return lambda port: [at.python, str(APPS / name), str(port)]


def _outputs(answer: bytes) -> Sequence[float]:
    found: Sequence[float] = json.loads(answer)["outputs"]
    return found


def _rows(
    name: str,
    kind: str,
    command: Callable[[int], list[str]],
    variables: Mapping[str, str],
    *,
    read: Reader | None = _outputs,
) -> Subject:
    """Return a server that takes a JSON list of rows at ``/predict``."""
    return Subject(
        name=name,
        kind=kind,
        command=command,
        path="/predict",
        ready="/ready",
        one=model.matrix,
        read=read,
        variables=variables,
    )


def require_wrk() -> None:
    """End with a message when wrk is not there."""
    try:
        run_once(["sh", "-c", "command -v wrk"], folder=Path())
    except RuntimeError:
        sys.exit("wrk is needed (Debian: apt-get install wrk)")


def try_each(subjects: Sequence[Subject], measure: Callable[[Subject], None]) -> list[str]:
    """Measure servers one after the other; return what could not be measured, and why."""
    missing = []
    for subject in subjects:
        tell(subject.name)
        try:
            measure(subject)
        except (RuntimeError, OSError) as error:
            tell(f"LEFT OUT: {error}")
            missing.append(f"{subject.name} is left out: {str(error)[:300]}")
    return missing
