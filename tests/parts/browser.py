"""Debian's Chromium, driven through its own driver: nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
from selenium.webdriver import Chrome, ChromeOptions, ChromeService

from tests.parts.found import find_chromedriver, find_chromium

Scheme = Literal["light", "dark"]

OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)


@dataclass(frozen=True, kw_only=True)
class Screen:
    """What the reader looks at: a size in CSS pixels and a colour scheme."""

    width: int
    height: int
    scheme: Scheme = "light"


DESKTOP = Screen(width=1280, height=900)
DESKTOP_DARK = Screen(width=1280, height=900, scheme="dark")
PHONE = Screen(width=390, height=844)
PHONE_DARK = Screen(width=390, height=844, scheme="dark")

OpenBrowser = Callable[[Screen], Chrome]


@pytest.fixture(scope="session")
def chromium() -> Path:
    """Return the browser's program."""
    found = find_chromium()
    assert found is not None, "a test that uses this fixture carries the marker needs_chromium"
    return found


@pytest.fixture
def open_browser(chromium: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenBrowser]:
    """Give the test a function that opens a browser at a screen; all are closed at its end."""
    opened: list[Chrome] = []

    def opener(screen: Screen) -> Chrome:
        driver = _start(chromium, tmp_path_factory.mktemp("browser"))
        opened.append(driver)
        set_screen(driver, screen)
        return driver

    yield opener
    for driver in opened:
        driver.quit()


def set_screen(driver: Chrome, screen: Screen) -> None:
    """Show the page at this size and in this colour scheme, as `prefers-color-scheme` says it."""
    driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {
            "width": screen.width,
            "height": screen.height,
            "deviceScaleFactor": 1,
            "mobile": screen.width < 600,
        },
    )
    features = [{"name": "prefers-color-scheme", "value": screen.scheme}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def _start(chromium: Path, profile: Path) -> Chrome:
    options = ChromeOptions()
    options.binary_location = str(chromium)
    for option in (*OPTIONS, f"--user-data-dir={profile}"):
        options.add_argument(option)
    # The browser's console is what tells a broken script or a blocked resource.
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return Chrome(options=options, service=ChromeService(executable_path=str(find_chromedriver())))
