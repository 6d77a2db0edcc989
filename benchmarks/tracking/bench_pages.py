"""How long a reader waits for the pages of tracking, in Chromium, with very many runs.

The limit is an answer of fifty bytes by the same server in the same browser, taken in turns.
Each sample is the time from the click to the end of the load event (the table is there and can be
used), and for charts to the first line drawn. The browser and the server run on this machine.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
from many_runs import fill_sqlite
from measure import Options, Report, parse_options, tell, workplace
from processes import everloop, free_port, run_once, running
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By

from everloop.app.client import Client, connect
from everloop.app.home import FOLDER_NAME, Home
from everloop.core.ports import where
from everloop.kernel.authz import Project
from everloop.kernel.tokens import CreateLoginLink, NewToken
from everloop.track import columns
from everloop.track.verbs import LogRun, MetricSeries, RunLogged, RunStarted, StartRun
from tests.parts.browser import DESKTOP, _start, set_screen
from tests.parts.found import find_chromium

PROJECT = "bench"
RUNS = 100_000
POINTS = 1_000_000
ROUNDS = 7
DONE = """
const entry = performance.getEntriesByType("navigation")[0];
return entry.loadEventEnd > 0 ? entry.loadEventEnd - entry.startTime : null;
"""
QUESTIONS = {
    "first page": "",
    "first page, chosen columns": "col=status&col=metrics.m0&col=metrics.m1&col=params.lr",
    "metric filter": "filter=metrics.m0+%3E+0.99",
    "OR of metric and parameter": "filter=metrics.m0+%3E+0.999+or+params.rare+%3D+%27yes%27",
    "sorted by a metric": "order=metrics.m0+DESC",
    "filtered and sorted": "filter=params.model+%3D+%27xgb%27&order=metrics.m3+DESC",
    "no run fits": "filter=params.model+%3D+%27none%27",
}


def main() -> None:
    """Measure and report."""
    options = parse_options(__doc__)
    count = RUNS // 100 if options.quick else RUNS
    report = Report("tracking_pages", options, notes=f"{count:,} runs x 20 params x 20 metrics.")
    chromium = find_chromium()
    if chromium is None:
        sys.exit("Chromium is not here; `make parts` installs it where that is permitted.")
    with workplace() as folder, TemporaryDirectory() as profile:
        run_once(everloop("init", "--name", PROJECT), folder=folder)
        with connect(folder) as client:
            project, code = _prepared(client, options)
        tell(f"filling {count:,} runs")
        fill_sqlite(Home(folder / FOLDER_NAME).database, count, project)
        port = free_port()
        with running(everloop("up", "--port", str(port)), folder=folder) as server:
            server.seconds_to_answer(port, "/healthz")
            driver = _start(chromium, Path(profile))
            try:
                set_screen(driver, DESKTOP)
                _log_in(driver, f"http://127.0.0.1:{port}", code)
                _measure(driver, f"http://127.0.0.1:{port}/p/{PROJECT}", report, options)
            finally:
                driver.quit()
    report.close()


def _prepared(client: Client, options: Options) -> tuple[str, str]:
    """Log one run with very many points; return the project's id and a login code."""
    assert client.kernel is not None
    run = client.kernel.services.ids.new()
    client.perform("run.start", StartRun(run=run, name="long"), RunStarted)
    points = POINTS // 100 if options.quick else POINTS
    for start in range(0, points, 200_000):
        steps = np.arange(start, min(start + 200_000, points), dtype=np.int64)
        values = np.sin(steps / 5e4) + np.random.default_rng(start).normal(0, 0.1, len(steps))
        part = columns.Columns(steps, steps * 1_000, values)
        series = (MetricSeries(key="loss", data=columns.encode(part)),)
        client.perform("run.log", LogRun(run=run, metrics=series), RunLogged)
    made = client.perform("login.create", CreateLoginLink(), NewToken)
    with client.kernel.store.read() as tx:
        project = tx.select(Project, *where(name=PROJECT))[0].id
    return project, made.secret


def _log_in(driver: Chrome, url: str, code: str) -> None:
    driver.get(f"{url}/login?code={code}")
    driver.find_element(By.CSS_SELECTOR, "button.primary").click()
    _until(lambda: "/login" not in driver.current_url)


def _measure(driver: Chrome, at: str, report: Report, options: Options) -> None:
    for name, query in QUESTIONS.items():
        _pages(driver, f"{at}/runs?{query}", report, name, options)
    driver.get(f"{at}/runs")
    onward = driver.find_element(By.CSS_SELECTOR, ".pager [rel=next]").get_attribute("href")
    assert onward is not None
    _pages(driver, onward, report, "next page", options)
    driver.get(onward)
    run = driver.find_element(By.CSS_SELECTOR, ".rows tbody th a").get_attribute("href")
    assert run is not None
    _pages(driver, run, report, "page of a run", options)
    driver.get(f"{at}/runs")
    ids = [
        box.get_attribute("value") or ""
        for box in driver.find_elements(By.CSS_SELECTOR, "input[name=run]")[:10]
    ]
    compared = "&".join(f"run={one}" for one in ids)
    _pages(driver, f"{at}/compare?{compared}", report, "ten runs compared", options)
    row = report.row("names for columns and completion", "ms")
    for _ in range(options.rounds(ROUNDS)):
        row.add("everloop", _fetched(driver, f"{at}/runs/names"))
    row = report.row("500 runs between parallel axes", "ms")
    for _ in range(options.rounds(ROUNDS)):
        row.add("everloop", _drawn(driver, f"{at}/runs?show=parallel", ".parallel canvas"))
    row = report.row(f"chart of {POINTS:,} points", "ms")
    for _ in range(options.rounds(ROUNDS)):
        page = f"{at}/runs?show=charts&filter=name+%3D+%27long%27"
        row.add("everloop", _drawn(driver, page, ".board canvas"))


def _pages(driver: Chrome, url: str, report: Report, name: str, options: Options) -> None:
    row = report.row(f"runs: {name}", "ms")
    driver.get(url)  # the database's pages and the browser's scripts are in memory from here on
    for _ in range(options.rounds(ROUNDS)):
        driver.get("about:blank")
        driver.get(url)
        row.add("everloop", _until(lambda: driver.execute_script(DONE)))
        row.add("limit", _fetched(driver, f"{url.partition('/p/')[0]}/healthz"))
    tell(f"{name}: {row.median('everloop'):.0f} ms")


def _drawn(driver: Chrome, url: str, selector: str) -> float:
    driver.get("about:blank")
    begin = time.perf_counter()
    driver.get(url)
    _until(lambda: driver.find_elements(By.CSS_SELECTOR, selector))
    return (time.perf_counter() - begin) * 1e3


def _fetched(driver: Chrome, url: str) -> float:
    driver.get("about:blank")
    driver.get(url)
    return _until(lambda: driver.execute_script(DONE))


def _until(ask: Callable[[], object], limit_s: float = 60.0) -> float:
    """Wait for an answer that says something; return it as a number where it is one."""
    end = time.perf_counter() + limit_s
    while time.perf_counter() < end:
        found = ask()
        if found:
            return float(found) if isinstance(found, int | float) else 0.0
        time.sleep(0.005)
    message = "the browser did not get there"
    raise RuntimeError(message)


if __name__ == "__main__":
    main()
