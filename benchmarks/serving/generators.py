"""The loads: wrk for as much as goes, and an open loop for a given rate."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import model
from processes import run_once
from subjects import Running

OPEN_LOOP = Path(__file__).with_name("open_loop.py")
# Requests are made once, before the clock runs; wrk's own reading of answers stays.
SCRIPT = """
local requests, turn = {}, 0
local headers = HEADERS
init = function(args)
  for number = 1, COUNT do
    local file = io.open(string.format("FOLDER/%03d", number - 1), "rb")
    requests[number] = wrk.format("POST", "PATH", headers, file:read("*a"))
    file:close()
  end
end
request = function()
  turn = turn % #requests + 1
  return requests[turn]
end
done = function(summary, latency)
  local failed = summary.errors
  io.write(string.format(
    '\\nTOLD {"requests": %d, "us": %d, "p50_us": %f, "p99_us": %f, "max_us": %f, ' ..
    '"status": %d, "socket": %d}\\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    latency.max, failed.status, failed.connect + failed.read + failed.write + failed.timeout))
end
"""


@dataclass(frozen=True)
class Load:
    """What a load found.

    Attributes:
        rate: Answers a second.
        cpu_us: Processor time of the server's whole tree for one answer.
        failed: Answers that were not 200, and broken connections.
    """

    rate: float
    p50_us: float
    p99_us: float
    cpu_us: float
    failed: int


def closed_loop(
    server: Running, bodies: Sequence[bytes], folder: Path, *, connections: int, seconds: float
) -> Load:
    """Let wrk ask over so many connections, each as soon as it has its answer."""
    place = model.write_bodies(folder / f"bodies-{len(bodies)}-{abs(hash(bodies[0]))}", bodies)
    script = folder / "post.lua"
    headers = {"Content-Type": "application/json"} | dict(server.subject.headers)
    script.write_text(
        SCRIPT.replace("COUNT", str(len(bodies)))
        .replace("HEADERS", _lua(headers))
        .replace("FOLDER", str(place))
        .replace("PATH", server.subject.path)
    )
    address = f"http://127.0.0.1:{server.port}"
    duration = f"{max(1, round(seconds))}s"
    before = server.process.cpu_s()
    _, told = run_once(
        [
            *("wrk", "-t1", f"-c{connections}", f"-d{duration}", "--timeout", "30s"),
            *("-s", str(script), address),
        ],
        folder=folder,
    )
    cpu = server.process.cpu_s() - before
    found = json.loads(told.partition("TOLD ")[2])
    asked = max(1, found["requests"])
    return Load(
        rate=1e6 * found["requests"] / found["us"],
        p50_us=found["p50_us"],
        p99_us=found["p99_us"],
        cpu_us=1e6 * cpu / asked,
        failed=found["status"] + found["socket"],
    )


def open_loop(
    server: Running,
    bodies: Sequence[bytes],
    folder: Path,
    *,
    rate: float,
    seconds: float,
    evenly: bool = False,
) -> Load:
    """Ask at a given rate whatever the answers do; latencies count from the scheduled moment."""
    place = model.write_bodies(folder / f"bodies-{len(bodies)}-{abs(hash(bodies[0]))}", bodies)
    given = {
        "port": server.port,
        "path": server.subject.path,
        "headers": {"Content-Type": "application/json"} | dict(server.subject.headers),
        "bodies": str(place),
        "rate": rate,
        "seconds": seconds,
        "evenly": evenly,
    }
    before = server.process.cpu_s()
    _, told = run_once([sys.executable, str(OPEN_LOOP), json.dumps(given)], folder=folder)
    cpu = server.process.cpu_s() - before
    found = json.loads(told)
    return Load(
        rate=found["rate"],
        p50_us=found["p50_us"],
        p99_us=found["p99_us"],
        cpu_us=1e6 * cpu / max(1, found["answers"]),
        failed=found["failed"],
    )


def _lua(headers: Mapping[str, str]) -> str:
    inner = ", ".join(f'["{name}"] = "{value}"' for name, value in headers.items())
    return "{" + inner + "}"
