"""Somebody works through many runs in a real browser: finds, compares, draws, opens files."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from everloop.track.model import Run
from everloop.track.queries import RunDetails, ShowRun
from everloop.track.search import FoundRuns, SearchRuns
from tests.parts.browser import (
    DESKTOP,
    DESKTOP_DARK,
    PHONE,
    PHONE_DARK,
    OpenBrowser,
    Screen,
    set_screen,
)
from tests.story.test_pages import CONTRAST, click, complaints, gone, heading, log_in, wait
from tests.unit.ui.filled import served
from tests.unit.ui.tracked import Tracked

pytestmark = pytest.mark.needs_chromium
SCREENS = (DESKTOP, DESKTOP_DARK, PHONE, PHONE_DARK)
PIXELS = """
const canvas = document.querySelector(arguments[0]);
const copy = new OffscreenCanvas(canvas.width, canvas.height);
const context = copy.getContext('2d', { willReadFrequently: true });
context.drawImage(canvas, 0, 0);
const data = context.getImageData(0, 0, canvas.width, canvas.height).data;
let count = 0;
for (let i = 3; i < data.length; i += 4) count += data[i] > 0;
return count;
"""


@pytest.fixture(scope="module")
def tracked() -> Tracked:
    return Tracked()


@pytest.fixture(scope="module")
def site(tracked: Tracked) -> Iterator[str]:
    with served(tracked.world.kernel) as url:
        yield url


@pytest.fixture
def browser(open_browser: OpenBrowser, tracked: Tracked, site: str) -> Chrome:
    return log_in(open_browser(DESKTOP), site, tracked.world)


def names(driver: Chrome) -> list[str]:
    return [link.text for link in driver.find_elements(By.CSS_SELECTOR, ".rows tbody th a")]


def all_of(driver: Chrome, selector: str) -> list[WebElement]:
    return driver.find_elements(By.CSS_SELECTOR, selector)


def one(driver: Chrome, selector: str) -> WebElement:
    wait(driver).until(lambda d: d.find_elements(By.CSS_SELECTOR, selector))
    return driver.find_element(By.CSS_SELECTOR, selector)


def test_a_filter_is_completed_by_keys_and_finds(browser: Chrome, site: str) -> None:
    browser.get(f"{site}/p/demo/runs")
    browser.find_element(By.TAG_NAME, "body").send_keys("/")
    field = browser.switch_to.active_element
    assert "filter" == field.get_attribute("id")

    field.send_keys("params.mo")
    wait(browser).until(lambda d: all_of(d, "[role=option]"))
    field.send_keys(Keys.ARROW_DOWN, Keys.ENTER, "= '")
    wait(browser).until(lambda d: "ridge" in one(d, "[role=listbox]").text)
    field.send_keys("rid")
    wait(browser).until(lambda d: ["ridge\nvalue"] == [o.text for o in all_of(d, "[role=option]")])
    field.send_keys(Keys.ARROW_DOWN, Keys.ENTER)
    field.send_keys("and metrics.accuracy > 0.5", Keys.ESCAPE, Keys.ENTER)

    wait(browser).until(lambda d: gone(d, field))
    assert names(browser)
    assert all(name.startswith("ridge") for name in names(browser))


def test_a_wrong_filter_points_at_the_place(browser: Chrome, site: str) -> None:
    browser.get(f"{site}/p/demo/runs?filter=metrics.loss+%3C+0.5+andd+status")

    lines = one(browser, ".caret").text.split("\n")
    assert "andd" == lines[0][lines[1].index("^") :][:4]
    assert "true" == one(browser, "#filter").get_attribute("aria-invalid")


def test_a_click_on_a_heading_sorts_and_another_turns_it_over(browser: Chrome, site: str) -> None:
    browser.get(f"{site}/p/demo/runs?filter=status+%3D+%27finished%27")

    click(browser, "accuracy")
    best = names(browser)
    browser.find_element(By.CSS_SELECTOR, "[aria-sort=descending] a").click()

    assert len(best) > 10
    assert best[0] == names(browser)[-1]
    assert one(browser, "[aria-sort=ascending]").text.startswith("accuracy")


def test_columns_are_chosen_and_kept_in_a_view_for_everybody(
    browser: Chrome, tracked: Tracked, site: str, open_browser: OpenBrowser
) -> None:
    browser.get(f"{site}/p/demo/runs?filter=params.model+%3D+%27ridge%27")
    one(browser, "#columns summary").click()
    one(browser, "#find-column").send_keys("team")
    wait(browser).until(lambda d: all_of(d, "input[value='tags.team']"))
    one(browser, "input[value='tags.team']").click()
    browser.find_element(By.XPATH, "//button[text()='Show these']").click()
    wait(browser).until(lambda d: "team" in one(d, ".rows thead").text)
    one(browser, "#views summary").click()
    one(browser, "#view-name").send_keys("ridges")
    browser.find_element(By.XPATH, "//button[text()='Save']").click()
    wait(browser).until(lambda d: "Views 1" in one(d, "#views summary").text)

    other = log_in(open_browser(DESKTOP), site, tracked.world)
    other.get(f"{site}/p/demo/runs")
    one(other, "#views summary").click()
    click(other, "ridges")

    assert all(name.startswith("ridge") for name in names(other))
    assert "forecast" in one(other, ".rows tbody").text
    one(other, "#views summary").click()
    one(other, "[aria-label='Delete view ridges']").click()
    wait(other).until(lambda d: "Views 0" in one(d, "#views summary").text)


def test_ticks_outlive_a_page_and_lead_to_a_comparison(browser: Chrome, site: str) -> None:
    browser.get(f"{site}/p/demo/runs?filter=params.model+%3D+%27ridge%27")
    one(browser, "input[name=run]").click()
    browser.get(f"{site}/p/demo/runs?filter=params.model+%3D+%27xgboost%27")
    first = one(browser, ".rows tbody th a")
    browser.execute_script("arguments[0].focus()", first)
    browser.switch_to.active_element.send_keys("j")
    browser.switch_to.active_element.send_keys("x")
    assert "2 ticked" == one(browser, "#ticked-count").text
    browser.switch_to.active_element.send_keys("c")

    wait(browser).until(lambda d: heading(d) == "Compare 2 runs")
    differing = {row.text.split("\n")[0].split()[0] for row in all_of(browser, "tr.differs")}
    assert {"model", "accuracy", "command"} <= differing
    assert "seed" not in differing
    browser.execute_script("document.querySelector('.board').scrollIntoView()")
    wait(browser).until(lambda d: all_of(d, ".board .chart canvas"))
    wait(browser).until(lambda d: all_of(d, ".parallel canvas"))
    assert [] == complaints(browser)


def test_one_box_ticks_all_runs_of_a_page(browser: Chrome, site: str) -> None:
    browser.get(f"{site}/p/demo/runs?filter=params.model+%3D+%27ridge%27")
    one(browser, "thead input").click()
    assert f"{len(names(browser))} ticked" == one(browser, "#ticked-count").text

    one(browser, "input[name=run]").click()
    assert browser.execute_script("return document.querySelector('thead input').indeterminate")
    one(browser, "thead input").click()
    one(browser, "thead input").click()
    assert "" == one(browser, "#ticked-count").text


def test_compared_runs_stand_in_one_table_whose_columns_stay_in_line(
    browser: Chrome, tracked: Tracked, site: str
) -> None:
    browser.get(f"{site}/p/demo/compare?run={tracked.runs[0]}&run={tracked.runs[1]}")

    assert 1 == len(all_of(browser, "table.compare"))
    heads = [head.text for head in all_of(browser, ".compare .section h2")]
    assert ["Metrics", "Parameters", "Tags", "Code and environment", "Packages"] == heads
    differing = [row.text.split("\n")[0] for row in all_of(browser, ".compare .differs .name")]
    assert any(name.startswith("model") for name in differing)
    assert not any(name.startswith("seed") for name in differing)
    edges = browser.execute_script(
        "return [...document.querySelectorAll('.compare tr > :nth-child(3)')]"
        ".map(cell => Math.round(cell.getBoundingClientRect().left))"
    )
    assert 1 == len(set(edges))


def test_an_experiment_is_described_renamed_and_put_away_with_its_runs(
    open_browser: OpenBrowser,
) -> None:
    own = Tracked(count=2)
    with served(own.world.kernel) as url:
        browser = log_in(open_browser(DESKTOP), url, own.world)
        browser.get(f"{url}/p/demo/experiments?filter=name+%3D+%27demand%27")
        assert "3" == one(browser, "tbody .n").text
        click(browser, "Details")
        browser.find_element(By.XPATH, "//summary[text()='Rename']").click()
        field = one(browser, "input[name=name]")
        field.clear()
        field.send_keys("need", Keys.ENTER)
        wait(browser).until(lambda d: heading(d) == "need")

        one(browser, ".confirm summary").click()
        one(browser, ".confirm textarea").send_keys("was a trial")
        one(browser, ".confirm [name=confirm]").click()
        one(browser, ".confirm button.danger").click()
        wait(browser).until(lambda d: heading(d) == "Experiments")
        browser.get(f"{url}/p/demo/runs")
        assert [] == names(browser)

        browser.get(f"{url}/p/demo/experiments?trash=yes")
        click(browser, "Details")
        browser.find_element(By.XPATH, "//button[text()='Restore the experiment']").click()
        click(browser, "Its runs")
        assert 3 == len(names(browser))


def test_many_runs_are_drawn_smoothed_zoomed_and_lit(browser: Chrome, site: str) -> None:
    browser.get(f"{site}/p/demo/runs?show=charts")
    wait(browser).until(lambda d: len(all_of(d, ".board .chart canvas")) == 2)
    assert 25 == len(all_of(browser, ".legend .swatch"))
    before = browser.execute_script(PIXELS, "[data-key=loss] canvas")

    browser.execute_script(
        "const s=document.querySelector('[name=smooth]');s.value=0.9;"
        "s.dispatchEvent(new Event('input',{bubbles:true}))"
    )
    wait(browser).until(lambda d: d.execute_script(PIXELS, "[data-key=loss] canvas") != before)
    assert "smooth=0.9" in browser.current_url
    plot = one(browser, "[data-key=loss] .u-over")
    ActionChains(browser).move_to_element_with_offset(plot, -60, 0).click_and_hold().move_by_offset(
        80, 0
    ).release().perform()
    wait(browser).until(lambda d: all_of(d, "[data-key=loss][data-finer]"))
    ActionChains(browser).double_click(one(browser, "[data-key=loss] .u-over")).perform()
    wait(browser).until(lambda d: not all_of(d, "[data-key=loss][data-finer]"))

    shown = browser.execute_script(PIXELS, "[data-key=accuracy] canvas")
    for button in all_of(browser, ".legend .swatch")[1:]:
        button.click()
    wait(browser).until(lambda d: d.execute_script(PIXELS, "[data-key=accuracy] canvas") < shown)
    assert [] == complaints(browser)


def test_what_was_logged_once_is_a_bar_for_each_run(browser: Chrome, site: str) -> None:
    browser.get(f"{site}/p/demo/runs?show=charts&size=50")

    rows = wait(browser).until(lambda d: all_of(d, ".singles .bars li"))
    values = [float(row.find_element(By.CSS_SELECTOR, ".n").text) for row in rows]
    widths = [row.find_element(By.CSS_SELECTOR, ".bar").size["width"] for row in rows]
    assert "mae" == one(browser, ".singles figcaption").text
    assert 24 == len(values)
    assert widths.index(max(widths)) in {i for i, v in enumerate(values) if v == max(values)}
    assert abs(min(widths) / max(widths) - min(values) / max(values)) < 0.02


@pytest.mark.parametrize("setting", ["logy=1", "logx=1", "axis=time", "axis=relative&logy=1"])
def test_axes_are_changed_and_shared_by_the_address(
    browser: Chrome, site: str, setting: str
) -> None:
    browser.get(f"{site}/p/demo/runs?show=charts#{setting}")

    wait(browser).until(lambda d: len(all_of(d, ".board .chart canvas")) == 2)
    assert [] == complaints(browser)


def test_a_live_run_goes_on_without_a_reload(open_browser: OpenBrowser) -> None:
    fresh = Tracked(count=1)
    with served(fresh.world.kernel) as url:
        driver = log_in(open_browser(DESKTOP), url, fresh.world)
        driver.get(f"{url}/p/demo/runs/{fresh.live}")
        wait(driver).until(lambda d: all_of(d, "[data-key=loss] canvas"))
        driver.execute_script("window.stayed = true")
        asked = "return performance.getEntriesByType('resource').map(e => e.name)"

        fresh.log(fresh.live, {"loss": {40: 0.5}, "late": {0: 1.0, 1: 2.0}})
        wait(driver).until(lambda d: all_of(d, "[data-key=late] canvas"))
        wait(driver).until(lambda d: "41" in one(d, "#metrics").text)
        fresh.finish(fresh.live)
        wait(driver).until(lambda d: "finished" in one(d, "#head").text)

        assert driver.execute_script("return window.stayed")
        assert any(
            "/plot?" in name and "known=0%3A" in name for name in driver.execute_script(asked)
        )


def test_a_brush_keeps_runs_and_becomes_a_filter(browser: Chrome, site: str) -> None:
    browser.get(f"{site}/p/demo/runs?show=parallel")
    wait(browser).until(lambda d: all_of(d, ".parallel .grip"))
    grips = all_of(browser, ".parallel .axis .grip")

    ActionChains(browser).move_to_element_with_offset(
        grips[-1], 0, 20
    ).click_and_hold().move_by_offset(0, 100).release().perform()

    wait(browser).until(lambda d: "within the brushes" in one(d, ".axes-board [role=status]").text)
    kept = int(one(browser, ".axes-board [role=status]").text.split()[0])
    one(browser, ".as-filter").click()
    wait(browser).until(lambda d: all_of(d, ".rows"))
    assert 0 < kept < 25
    assert kept == len(names(browser))
    assert [] == complaints(browser)


def test_runs_go_to_the_trash_and_come_back(open_browser: OpenBrowser) -> None:
    fresh = Tracked(count=3)
    with served(fresh.world.kernel) as url:
        driver = log_in(open_browser(DESKTOP), url, fresh.world)
        driver.get(f"{url}/p/demo/runs?filter=status+%3D+%27finished%27")
        for box in all_of(driver, "input[name=run]")[:2]:
            box.click()
        driver.find_element(By.XPATH, "//button[text()='Put the ticked into the trash']").click()
        wait(driver).until(lambda d: len(names(d)) == 2)

        click(driver, "Trash")
        assert 2 == len(names(driver))
        one(driver, "input[name=run]").click()
        driver.find_element(By.XPATH, "//button[text()='Restore the ticked']").click()
        wait(driver).until(lambda d: len(names(d)) == 1)

    found = fresh.world.owner.perform("run.search", SearchRuns(), FoundRuns)
    assert 3 == len(found.items)


def test_name_note_and_tags_are_edited_in_place(open_browser: OpenBrowser) -> None:
    fresh = Tracked(count=1)
    with served(fresh.world.kernel) as url:
        driver = log_in(open_browser(DESKTOP), url, fresh.world)
        driver.get(f"{url}/p/demo/runs/{fresh.runs[0]}")

        edit(driver, "Write a note", note="Too slow.\n<b>Really</b>")
        edit(driver, "Set a tag", key="stage", value="draft")
        edit(driver, "Rename", name=" the first")
        one(driver, "[aria-label='Take tag team away']").click()
        wait(driver).until(lambda d: not all_of(d, "[aria-label='Take tag team away']"))

        assert "Too slow.\n<b>Really</b>" == one(driver, ".prose").text
        assert heading(driver).endswith("the first")
    with fresh.world.kernel.store.read() as tx:
        run = tx.find(Run, fresh.runs[0])
    assert run is not None
    assert "draft" == run.tags["stage"]
    assert "team" not in run.tags


def edit(driver: Chrome, label: str, **fields: str) -> None:
    summary = driver.find_element(By.XPATH, f"//summary[text()='{label}']")
    driver.execute_script("arguments[0].scrollIntoView({block:'center'})", summary)
    summary.click()
    form = summary.find_element(By.XPATH, "../form")
    for name, text in fields.items():
        form.find_element(By.NAME, name).send_keys(text)
    form.find_element(By.CSS_SELECTOR, "button").click()
    wait(driver).until(lambda d: gone(d, form))


def test_files_are_shown_each_in_its_way(browser: Chrome, tracked: Tracked, site: str) -> None:
    at = f"{site}/p/demo/runs/{tracked.runs[0]}/files"
    browser.get(at)
    click(browser, "plots/")
    click(browser, "demand.png")
    width = "return document.querySelector('.picture img').naturalWidth"
    wait(browser).until(lambda d: d.execute_script(width) == 96)

    browser.get(f"{at}?path=tables/hours.parquet")
    assert "250 rows" in one(browser, ".viewer").text
    click(browser, "Rows after")
    click(browser, "Rows after")
    assert 50 == len(all_of(browser, ".viewer tbody tr"))
    browser.get(f"{at}?path=tables/hours.csv&at=200")
    assert "a, b <b>229</b>" in one(browser, ".viewer tbody").text
    browser.get(f"{at}?path=config.json")
    assert '"rate": 0.1' in one(browser, ".source").text
    browser.get(f"{at}?path=README.md")
    assert "<b>text</b>, with an umlaut: ä" in one(browser, ".prose").text
    browser.get(f"{at}?path=model/model.bin")
    assert "Not shown here" in one(browser, ".viewer").text
    assert [] == complaints(browser)


@pytest.mark.parametrize("scripts", [False, True])
def test_a_page_among_the_files_reaches_nothing_of_the_visitor(
    browser: Chrome, tracked: Tracked, site: str, scripts: bool
) -> None:
    browser.get(f"{site}/p/demo/runs/{tracked.runs[0]}/files?path=report.html")
    if scripts:
        click(browser, "Let them run in the sandbox")
    browser.switch_to.frame(one(browser, "iframe.sandbox"))
    assert "Report" == one(browser, "p").text
    probe = "try { return document.cookie + self.origin } catch (e) { return e.name }"
    if scripts:
        assert "SecurityError" == browser.execute_script(probe)
    browser.switch_to.default_content()

    assert browser.title.endswith("Everloop")
    assert ["everloop_session"] == [cookie["name"] for cookie in browser.get_cookies()]


@pytest.mark.parametrize("path", ["report.html&scripts=yes", "plots/shape.svg"])
def test_a_file_opened_by_its_own_address_has_no_origin(
    browser: Chrome, tracked: Tracked, site: str, path: str
) -> None:
    browser.get(f"{site}/p/demo/runs/{tracked.runs[0]}/file?path={path}")

    assert "null" == browser.execute_script("return self.origin")
    assert ["everloop_session"] == [cookie["name"] for cookie in browser.get_cookies()]


@pytest.mark.parametrize("screen", SCREENS, ids=lambda s: f"{s.width} {s.scheme}")
def test_every_page_of_tracking_fits_and_reads_well(
    browser: Chrome, tracked: Tracked, site: str, screen: Screen
) -> None:
    set_screen(browser, screen)
    run = tracked.runs[0]
    both = f"run={run}&run={tracked.runs[3]}"
    shown = tracked.world.owner.perform("run.show", ShowRun(run=run), RunDetails)

    for path in (
        "/runs",
        "/runs?filter=params.model+%3D%3D%3D+1",
        "/runs?filter=params.model+%3D+%27none%27",
        "/runs?show=charts",
        "/runs?show=parallel",
        "/runs?trash=yes",
        f"/runs/{run}",
        f"/runs/{run}/system",
        f"/runs/{run}/environment",
        f"/runs/{run}/files",
        f"/runs/{run}/files?path=tables/hours.csv",
        f"/runs/{run}/files?path=plots/shape.svg",
        "/experiments",
        "/experiments?trash=yes",
        f"/experiments/{shown.run.experiment}",
        f"/compare?{both}",
        f"/compare?only=different&{both}",
    ):
        browser.get(f"{site}/p/demo{path}")
        width = browser.execute_script("return document.documentElement.scrollWidth")
        assert width <= screen.width, path
        assert [] == browser.execute_script(CONTRAST), path
        assert 1 == len(all_of(browser, "h1")), path
    assert all("400" in text for text in complaints(browser))


def test_uncommitted_changes_are_shown_of_one_run_and_of_several(
    browser: Chrome, tracked: Tracked, site: str
) -> None:
    browser.get(f"{site}/p/demo/runs/{tracked.runs[0]}/environment")
    assert "+rate = '<b>2</b>'" == one(browser, ".diff .plus").text
    assert "numpy" in one(browser, ".packages").text

    browser.get(f"{site}/p/demo/compare?run={tracked.runs[0]}&run={tracked.runs[3]}")
    browser.find_element(By.CSS_SELECTOR, "#code + details summary").click()
    assert "-rate = 1" == one(browser, ".diff .minus").text
    assert "none kept" in one(browser, "main").text


def test_the_names_of_a_project_come_for_the_columns(browser: Chrome, site: str) -> None:
    browser.get(f"{site}/p/demo/runs/names")

    found = json.loads(one(browser, "pre").text)
    assert ["accuracy", "loss", "mae", "system/cpu"] == found["metrics"]
    assert ["depth", "model", "rate", "seed"] == found["params"]
