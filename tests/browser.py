"""A browser without a window, for tests that look at pages; skipped where there is none."""

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from selenium import webdriver

OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--hide-scrollbars", "--window-size=1280,1000"),
)


@contextmanager
def browser() -> Iterator[Any]:
    """Chromium through its driver."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("no chromium with its driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for option in OPTIONS:
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    opened = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    opened.set_page_load_timeout(60)
    try:
        yield opened
    finally:
        opened.quit()


def wait_until(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    """Wait until there is something; returns it."""
    end = time.monotonic() + seconds
    while True:
        if result := condition():
            return result
        assert time.monotonic() < end, f"nothing within {seconds} seconds"
        time.sleep(0.2)


def text_of(opened: Any) -> str:
    """What a page shows."""
    return str(opened.execute_script("return document.body.innerText"))
