"""The what-if page in a real browser, over a real process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

from everloop.serve.protocol import InputField
from tests.parts.browser import DESKTOP, DESKTOP_DARK, PHONE, OpenBrowser, Screen
from tests.unit.serve.served import INPUTS, ROW, TOKEN, make_folder
from tests.unit.serve.standalone import saved, seal, standing

pytestmark = [pytest.mark.needs_chromium, pytest.mark.slow]
BACKGROUND = saved([[h, 1.5 * h, h % 2, h % 4] for h in range(24)])
RANGED = (
    InputField(name="hour", dtype="int64", minimum=0, maximum=23),
    InputField(name="temperature", dtype="float64", nullable=True, minimum=-8.0, maximum=36.0),
    *INPUTS[2:],
)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = seal(
        tmp_path_factory.mktemp("whatif") / "bundle",
        inputs=RANGED,
        attached={"background.npy": BACKGROUND},
        background="background.npy",
    )
    with standing(str(folder), "--port", "0") as found:
        yield found


def shown(driver: Chrome) -> str:
    """What the page answers, once it has answered."""

    def read(browser: Chrome) -> str:
        answer = browser.find_element(By.ID, "answer")
        return "" if "busy" in (answer.get_attribute("class") or "") else answer.text

    return str(WebDriverWait(driver, 20).until(read))


def keep(driver: Chrome, name: str) -> None:
    """Keep a picture for a person to look at, where one is wanted."""
    folder = os.environ.get("EVERLOOP_TEST_PICTURES")
    if folder:
        driver.save_screenshot(str(Path(folder) / f"{name}.png"))


def complaints(driver: Chrome) -> list[str]:
    """What the console says of broken scripts and of resources that were blocked."""
    return [
        entry["message"]
        for entry in driver.get_log("browser")  # type: ignore[no-untyped-call]
        if entry["level"] == "SEVERE" and "favicon" not in entry["message"]
    ]


def test_a_change_of_an_input_changes_the_answer_and_its_explanation(
    url: str, open_browser: OpenBrowser
) -> None:
    driver = open_browser(DESKTOP)
    driver.get(f"{url}/models/bikes/whatif")
    first = shown(driver)

    hour = driver.find_element(By.ID, "input-0")
    hour.send_keys(Keys.CONTROL, "a")
    hour.send_keys("8")
    Select(driver.find_element(By.ID, "input-2")).select_by_value("true")
    Select(driver.find_element(By.ID, "input-3")).select_by_value("rain")
    temperature = driver.find_element(By.ID, "input-1")
    temperature.send_keys(Keys.CONTROL, "a")
    temperature.send_keys("21.5")
    asked = httpx.post(f"{url}/models/bikes/predict", json={"inputs": [ROW]}).json()
    wanted = f"{asked['predictions'][0]['output']:.6g}"
    WebDriverWait(driver, 20).until(lambda browser: shown(browser) == wanted)

    assert first != wanted
    names = [cell.text for cell in driver.find_elements(By.CSS_SELECTOR, "#why th")]
    assert {"base", "hour", "temperature", "working_day", "weather", "answer"} == set(names)
    last = driver.find_elements(By.CSS_SELECTOR, "#why td.number")[-1]
    assert wanted == last.text
    assert "24 rows" in driver.find_element(By.ID, "how").text
    assert not complaints(driver)
    keep(driver, "whatif")


def test_a_value_that_is_no_number_is_marked_and_not_asked(
    url: str, open_browser: OpenBrowser
) -> None:
    driver = open_browser(DESKTOP)
    driver.get(f"{url}/models/bikes/whatif")
    first = shown(driver)

    hour = driver.find_element(By.ID, "input-0")
    hour.send_keys("x")

    WebDriverWait(driver, 20).until(lambda _: hour.get_attribute("aria-invalid") == "true")
    assert first == shown(driver)


@pytest.mark.parametrize("screen", [PHONE, DESKTOP_DARK], ids=["phone", "dark"])
def test_the_page_fits_its_screen(url: str, open_browser: OpenBrowser, screen: Screen) -> None:
    driver = open_browser(screen)
    driver.get(f"{url}/models/bikes/whatif")

    shown(driver)

    width = driver.execute_script("return document.documentElement.scrollWidth")
    assert screen.width >= width
    keep(driver, f"whatif-{screen.width}-{screen.scheme}")


def test_a_home_asks_for_a_token_and_takes_it(tmp_path: Path, open_browser: OpenBrowser) -> None:
    served = make_folder(tmp_path / "bikes")
    try:
        served.route(served.seal(1))
        url = served.start().url
        driver = open_browser(DESKTOP)
        driver.get(f"{url}/models/bikes/whatif")
        field = WebDriverWait(driver, 20).until(
            lambda browser: browser.find_element(By.ID, "token")
        )
        WebDriverWait(driver, 20).until(lambda _: field.is_displayed())

        field.send_keys(TOKEN, Keys.ENTER)

        assert shown(driver)
        assert not field.is_displayed()
    finally:
        served.close()
    assert not served.rows(), "a question is no prediction"
