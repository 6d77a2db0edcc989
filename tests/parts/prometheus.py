"""A real Prometheus that scrapes one address."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.parts.ports import free_port

CONFIG = """\
global: {{scrape_interval: 200ms, scrape_timeout: 200ms}}
scrape_configs:
  - job_name: everloop
    static_configs: [{{targets: ["{target}"]}}]
"""
PATIENCE_S = 30.0
Ask = Callable[[str], dict[str, float]]
Scrape = Callable[[str], Ask]


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[Scrape]:
    """Start a Prometheus that scrapes a target; what is returned answers PromQL with values."""
    started: list[subprocess.Popen[bytes]] = []

    def scrape(target: str) -> Ask:
        program = shutil.which("prometheus")
        assert program is not None
        config, port = tmp_path / "prometheus.yml", free_port()
        config.write_text(CONFIG.format(target=target))
        started.append(
            subprocess.Popen(
                [
                    program,
                    f"--config.file={config}",
                    f"--storage.tsdb.path={tmp_path / 'tsdb'}",
                    f"--web.listen-address=127.0.0.1:{port}",
                ],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        )
        url = f"http://127.0.0.1:{port}"

        def ask(query: str) -> dict[str, float]:
            end = time.monotonic() + PATIENCE_S
            while time.monotonic() < end:
                found = _query(url, query)
                if found:
                    return found
                time.sleep(0.1)
            raise AssertionError(f"Prometheus has no answer to {query}")

        return ask

    yield scrape
    for process in started:
        process.terminate()
        process.wait(20)


def _query(url: str, query: str) -> dict[str, float]:
    try:
        told = httpx.get(f"{url}/api/v1/query", params={"query": query}).json()
    except (httpx.HTTPError, ValueError):
        return {}
    rows = told.get("data", {}).get("result", [])
    return {
        ",".join(f"{name}={text}" for name, text in sorted(row["metric"].items())): float(
            row["value"][1]
        )
        for row in rows
    }
