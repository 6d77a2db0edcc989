"""A stranger opens the pages in a real browser and finds their way."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from selenium.common.exceptions import StaleElementReferenceException, WebDriverException
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.expected_conditions import (
    presence_of_element_located as present,
)
from selenium.webdriver.support.expected_conditions import (
    text_to_be_present_in_element as says,
)
from selenium.webdriver.support.expected_conditions import (
    title_contains,
)
from selenium.webdriver.support.wait import WebDriverWait

from everloop.kernel.ledger.log import LedgerEntry
from everloop.monitor.model import Alert, AlertState
from everloop.release.model import State
from tests.kit import World
from tests.parts.browser import (
    DESKTOP,
    DESKTOP_DARK,
    PHONE,
    PHONE_DARK,
    OpenBrowser,
    Screen,
    set_screen,
)
from tests.unit.release.released import Released
from tests.unit.ui.filled import Filled, login_code, served

pytestmark = pytest.mark.needs_chromium
SCREENS = (DESKTOP, DESKTOP_DARK, PHONE, PHONE_DARK)
CONTRAST = """
const luminance = (c) => {
  const [r, g, b] = c.map((v) => {
    v /= 255;
    return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const parse = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
const behind = (element) => {
  const layers = [];
  for (let e = element; e; e = e.parentElement) {
    const c = parse(getComputedStyle(e).backgroundColor);
    if (c.length === 3 || c[3] > 0) layers.push(c);
    if (c.length === 3) break;
  }
  let result = [255, 255, 255];
  for (const c of layers.reverse()) {
    const a = c.length === 4 ? c[3] : 1;
    result = result.map((v, i) => v * (1 - a) + c[i] * a);
  }
  return result;
};
const poor = [];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const element = walker.currentNode.parentElement;
  if (!walker.currentNode.textContent.trim() || element.closest("svg, .unseen, .skip")) continue;
  const style = getComputedStyle(element);
  if (style.visibility === "hidden" || !element.getClientRects().length) continue;
  const a = luminance(parse(style.color).slice(0, 3));
  const b = luminance(behind(element));
  const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  if (ratio < 4.5) poor.push(walker.currentNode.textContent.trim().slice(0, 30) + " " + ratio);
}
return poor;
"""


@pytest.fixture(scope="module")
def filled() -> Filled:
    return Filled()


@pytest.fixture(scope="module")
def site(filled: Filled) -> Iterator[str]:
    with served(filled.world.kernel) as url:
        yield url


@pytest.fixture
def browser(open_browser: OpenBrowser, filled: Filled, site: str) -> Chrome:
    """Give a browser that logged in by its link."""
    return log_in(open_browser(DESKTOP), site, filled.world)


def log_in(driver: Chrome, site: str, world: World) -> Chrome:
    driver.get(f"{site}/login?code={login_code(world)}")
    driver.find_element(By.CSS_SELECTOR, "button.primary").click()
    wait(driver).until(lambda d: "/login" not in d.current_url)
    return driver


def wait(driver: Chrome) -> WebDriverWait[Chrome]:
    # A page that is just being replaced is not there yet.
    return WebDriverWait(driver, 15, ignored_exceptions=[StaleElementReferenceException])


def click(driver: Chrome, text: str) -> None:
    driver.find_element(By.LINK_TEXT, text).click()


def heading(driver: Chrome) -> str:
    return driver.find_element(By.TAG_NAME, "h1").text


def complaints(driver: Chrome) -> list[str]:
    return [str(entry["message"]) for entry in driver.get_log("browser")]  # type: ignore[no-untyped-call]


def paths(filled: Filled) -> list[str]:
    assert filled.live is not None
    inside = [
        "",
        "/datasets",
        "/datasets/bike/1",
        "/runs",
        f"/runs/{filled.runs[0]}",
        f"/compare?run={filled.runs[0]}&run={filled.runs[1]}",
        "/models/demand",
        f"/models/demand/{filled.versions[2].version}",
        "/deployments",
        "/deployments/bikes",
        f"/releases/{filled.live.release.id}",
        "/loop",
        f"/loop/{filled.turn}",
        "/lineage",
        f"/lineage?ref=model_version:{filled.versions[0].id}",
        "/audit",
    ]
    return ["/p/demo" + path for path in inside]


def test_from_the_overview_one_gets_to_everything_by_links(browser: Chrome) -> None:
    stations = browser.find_elements(By.CSS_SELECTOR, ".station-name")
    assert ["Data", "Train", "Gate", "Release", "Serve", "Monitor"] == [s.text for s in stations]

    click(browser, "Runs")
    click(browser, "fit 0 plain")
    assert "fit 0 plain" == heading(browser)
    click(browser, "Models")
    click(browser, "demand")
    click(browser, "1.1.0")
    assert "demand 1.1.0" == heading(browser)
    click(browser, "Deployments")
    click(browser, "bikes")
    click(browser, "Audit")
    assert "Audit" == heading(browser)
    click(browser, "Data")
    click(browser, "bike")
    assert "bike" == heading(browser)


def test_charts_are_drawn_under_the_content_policy(
    browser: Chrome, filled: Filled, site: str
) -> None:
    browser.get(f"{site}/p/demo/runs/{filled.runs[0]}")
    wait(browser).until(present((By.CSS_SELECTOR, ".chart canvas")))
    browser.get(f"{site}/p/demo/deployments/bikes")
    wait(browser).until(present((By.CSS_SELECTOR, ".chart canvas")))

    assert [] == complaints(browser)


def test_runs_are_compared_by_ticking_them(browser: Chrome, site: str) -> None:
    browser.get(f"{site}/p/demo/runs")
    for box in browser.find_elements(By.NAME, "run")[:2]:
        box.click()
    browser.find_element(By.XPATH, "//button[text()='Compare the ticked']").click()
    wait(browser).until(says((By.TAG_NAME, "h1"), "Compare"))

    assert "Compare 2 runs" == heading(browser)
    assert browser.find_elements(By.CSS_SELECTOR, "tr.differs")
    wait(browser).until(present((By.CSS_SELECTOR, ".chart canvas")))


def test_the_overview_follows_what_happens_without_a_reload(
    open_browser: OpenBrowser,
) -> None:
    fresh = Filled()
    with served(fresh.world.kernel) as url:
        driver = log_in(open_browser(DESKTOP), url, fresh.world)
        wait(driver).until(says((By.CSS_SELECTOR, ".s-release"), "canary"))

        fresh.released.rollback()

        wait(driver).until(says((By.CSS_SELECTOR, ".s-release"), "rolled back"))
        assert [] == complaints(driver)


def test_somebody_rolls_back_and_acknowledges_with_a_reason(open_browser: OpenBrowser) -> None:
    fresh = Filled()
    with served(fresh.world.kernel) as url:
        driver = log_in(open_browser(DESKTOP), url, fresh.world)
        driver.get(f"{url}/p/demo/deployments/bikes")

        fill_in(driver, ".alerts .confirm", "Known: a holiday.")
        fill_in(driver, ".confirm.danger", "The numbers look wrong.")

        assert "bikes" == heading(driver)
    assert fresh.live is not None
    with fresh.released.look() as view:
        assert AlertState.ACKNOWLEDGED is view.get(Alert, fresh.alert).state
        entry = view.tx.select(LedgerEntry, order="index", descending=True, limit=1)[0]
    assert "release.rollback" == entry.action
    live = fresh.released.deployment().live
    assert live is None or live.state is State.ROLLED_BACK


def fill_in(driver: Chrome, part: str, reason: str) -> None:
    box = driver.find_element(By.CSS_SELECTOR, part)
    box.find_element(By.TAG_NAME, "summary").click()
    box.find_element(By.NAME, "reason").send_keys(reason)
    box.find_element(By.NAME, "confirm").click()
    box.find_element(By.TAG_NAME, "button").click()
    wait(driver).until(lambda d: gone(d, box))


def gone(driver: Chrome, element: object) -> bool:
    """Tell whether an element's page has been replaced, or is just being replaced."""
    del driver
    assert isinstance(element, WebElement)
    try:
        element.is_enabled()
    except StaleElementReferenceException:
        return True
    except WebDriverException as error:
        if "does not belong to the document" in str(error):
            return True
        raise
    return False


@pytest.mark.parametrize("screen", SCREENS, ids=lambda s: f"{s.width} {s.scheme}")
def test_every_page_fits_and_reads_well(
    browser: Chrome, filled: Filled, site: str, screen: Screen
) -> None:
    set_screen(browser, screen)

    for path in paths(filled):
        browser.get(site + path)
        width = browser.execute_script("return document.documentElement.scrollWidth")
        assert width <= screen.width, path
        assert [] == browser.execute_script(CONTRAST), path
        assert 1 == len(browser.find_elements(By.TAG_NAME, "h1")), path
        assert 1 == len(browser.find_elements(By.TAG_NAME, "main")), path
        assert "Everloop" in browser.title
    assert [] == complaints(browser)


def test_the_ledger_is_verified_by_a_button(open_browser: OpenBrowser) -> None:
    honest = Released()
    with served(honest.world.kernel) as url:
        driver = log_in(open_browser(DESKTOP), url, honest.world)
        click(driver, "Audit")

        driver.find_element(By.XPATH, "//button[text()='Verify now']").click()

        wait(driver).until(says((By.CSS_SELECTOR, "[role=status]"), "The ledger verifies"))


def test_rows_that_came_past_the_verbs_are_named(browser: Chrome, site: str) -> None:
    browser.get(f"{site}/p/demo/audit")

    browser.find_element(By.XPATH, "//button[text()='Verify now']").click()

    wait(browser).until(says((By.CSS_SELECTOR, "[role=status]"), "does not verify"))
    assert "loss_point" in browser.find_element(By.CSS_SELECTOR, "[role=status]").text


def test_an_entry_shows_its_proof_and_a_node_its_origins(
    browser: Chrome, filled: Filled, site: str
) -> None:
    click(browser, "Audit")
    browser.find_element(By.CSS_SELECTOR, "tbody a").click()
    assert heading(browser).startswith("Entry ")
    assert "verified" in browser.find_element(By.XPATH, "//h2[contains(., 'Proof')]").text

    click(browser, "Lineage")
    assert filled.live is not None
    browser.find_element(By.NAME, "ref").send_keys(f"release:{filled.live.release.id}\n")
    wait(browser).until(present((By.CSS_SELECTOR, ".graph .node")))
    assert "waiver" in browser.find_element(By.TAG_NAME, "main").text


def test_the_keyboard_reaches_the_content_past_the_menu(browser: Chrome, site: str) -> None:
    browser.get(f"{site}/p/demo/models")

    browser.execute_script("document.querySelector('.skip').focus()")
    browser.switch_to.active_element.send_keys("\n")

    assert "main" == browser.switch_to.active_element.get_attribute("id")


def test_logging_out_closes_the_pages(browser: Chrome, site: str) -> None:
    browser.find_element(By.XPATH, "//button[text()='Log out']").click()
    wait(browser).until(title_contains("Log in"))

    browser.get(f"{site}/p/demo")

    assert "everloop token login" in browser.find_element(By.TAG_NAME, "main").text


def test_an_empty_project_tells_the_next_command(open_browser: OpenBrowser) -> None:
    fresh = Filled()
    fresh.world.project("empty")
    with served(fresh.world.kernel) as url:
        driver = log_in(open_browser(PHONE), url, fresh.world)
        wait(driver).until(title_contains("Projects"))
        click(driver, "empty")

        assert "everloop data commit" in driver.find_element(By.TAG_NAME, "main").text
        for tab in ("Data", "Runs", "Models", "Deployments", "Loop", "Lineage"):
            click(driver, tab)
            assert driver.find_elements(By.CSS_SELECTOR, ".empty pre"), tab
