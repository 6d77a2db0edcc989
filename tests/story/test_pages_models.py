"""Somebody keeps a model's record in a real browser: what is said, aliases, the past, the trash."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By

from tests.parts.browser import DESKTOP, PHONE_DARK, OpenBrowser, set_screen
from tests.story.test_pages import CONTRAST, complaints, fill_in, heading, log_in, wait
from tests.story.test_pages_tracking import all_of, edit, one
from tests.unit.ui.filled import Filled, served

pytestmark = pytest.mark.needs_chromium


@pytest.fixture(scope="module")
def filled() -> Filled:
    return Filled()


@pytest.fixture(scope="module")
def site(filled: Filled) -> Iterator[str]:
    with served(filled.world.kernel) as url:
        yield url


@pytest.fixture
def browser(open_browser: OpenBrowser, filled: Filled, site: str) -> Chrome:
    return log_in(open_browser(DESKTOP), site, filled.world)


def main_text(driver: Chrome) -> str:
    return driver.find_element(By.TAG_NAME, "main").text


def test_what_is_said_of_a_model_is_edited_in_place(browser: Chrome, site: str) -> None:
    browser.get(f"{site}/p/demo/models/demand")

    edit(browser, "Change this", owner="Ann & Bob", licence="MIT", intended_use="Bikes.\nNot cars.")
    edit(browser, "Set a tag", key="tier", value="high")

    assert "Ann & Bob" in main_text(browser)
    assert "Bikes.\nNot cars." == one(browser, "dd.pre").text
    one(browser, "[aria-label='Take tag tier away']").click()
    wait(browser).until(lambda d: "No tags." in main_text(d))
    browser.get(f"{site}/p/demo/models?filter=owner+LIKE+%27Ann%25%27")
    assert "demand" in one(browser, "tbody").text


def test_an_alias_is_moved_with_a_reason_and_its_past_is_told(
    browser: Chrome, filled: Filled, site: str
) -> None:
    newest = filled.versions[2].version
    browser.get(f"{site}/p/demo/models/demand/{newest}")
    edit(browser, "Point an alias here", alias="candidate", reason="Better on hills.")
    assert "Better on hills." in main_text(browser)

    filled.world.clock.push(hours=1)
    older = filled.versions[0].version
    edit(browser, "Move an alias", alias="candidate", version=older, reason="It was not.")
    moves = all_of(browser, "[aria-label='Every move of an alias'] tbody tr")
    assert f"candidate {newest} {older} owner It was not." in moves[0].text
    assert f"candidate – {newest} owner Better on hills." in moves[1].text

    browser.get(f"{site}/p/demo/models/demand?as_of=2025-01-01T00:00:00")
    assert "No alias was set by then." in one(browser, "#then").text
    browser.get(f"{site}/p/demo/models/demand?as_of=2026-01-01T00:30:00")
    assert newest in one(browser, "#then").text
    browser.get(f"{site}/p/demo/models/demand?as_of=yesterday")
    assert all_of(browser, "#then [role=alert]")


def test_production_is_not_moved_by_hand(browser: Chrome, filled: Filled, site: str) -> None:
    browser.get(f"{site}/p/demo/models/demand/{filled.versions[2].version}")

    edit(browser, "Point an alias here", alias="production", reason="I want it.")

    assert "moves only with a release" in heading(browser)


def test_a_version_shows_its_files_and_goes_to_the_trash_and_back(
    browser: Chrome, filled: Filled, site: str
) -> None:
    version = filled.versions[2]
    fresh = Filled()
    at = f"/p/demo/models/demand/{version.version}"
    browser.get(f"{site}{at}/files?path={version.files[0].path}")
    assert version.files[0].path in one(browser, ".viewer-head").text

    browser.get(f"{site}{at}")
    edit(browser, "Write notes", description="Trained on a wet spring.")
    assert "wet spring" in one(browser, ".prose").text
    with served(fresh.world.kernel) as url:
        log_in(browser, url, fresh.world)
        browser.get(f"{url}/p/demo/models/demand/1.0.0")
        fill_in(browser, ".confirm.danger", "Never used.")
        assert not browser.find_elements(By.LINK_TEXT, "1.0.0")
        browser.get(f"{url}/p/demo/models/demand?trash=yes")
        browser.find_element(By.LINK_TEXT, "1.0.0").click()
        browser.find_element(By.XPATH, "//button[text()='Restore the version']").click()
        wait(browser).until(lambda d: "in the trash" not in main_text(d))


def test_a_version_in_use_stays_out_of_the_trash(
    browser: Chrome, filled: Filled, site: str
) -> None:
    browser.get(f"{site}/p/demo/models/demand/{filled.versions[1].version}")

    fill_in(browser, ".confirm.danger", "Away with it.")

    assert "409" in main_text(browser)


def test_filters_of_models_and_versions_point_at_mistakes(browser: Chrome, site: str) -> None:
    for path in ("models?filter=nam+%3D+%27x%27", "models/demand?filter=bumb+%3D+%27x%27"):
        browser.get(f"{site}/p/demo/{path}")
        lines = one(browser, ".caret").text.split("\n")
        assert 0 == lines[1].index("^")

    browser.get(f"{site}/p/demo/models/demand?filter=bump+%3D+%27first%27")
    assert 1 == len(all_of(browser, "[aria-label=Versions] tbody tr"))


def test_the_pages_of_models_fit_a_phone_in_the_dark(
    browser: Chrome, filled: Filled, site: str
) -> None:
    set_screen(browser, PHONE_DARK)
    version = filled.versions[1]
    for path in (
        "models",
        "models?trash=yes",
        "models/demand?as_of=2026-01-02T00:00:00",
        f"models/demand/{version.version}",
        f"models/demand/{version.version}/files?path={version.files[0].path}",
    ):
        browser.get(f"{site}/p/demo/{path}")
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 390, path
        assert [] == browser.execute_script(CONTRAST), path
    assert [] == complaints(browser)
