"""The board in Chromium, with a hub and a connector behind it: it changes by itself."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from resources.ttm.database import TtmDatabase
from resources.ttm.requester import HubClient
from resources.ttm.settings import Settings
from sandbox.ttm import SystemConfig, serve
from services.ttm_board.config import BoardConfig
from tests.etl_assets.ttm.ttm_house import KEY, PASSWORD, Background, connector, hub
from tests.services.ttm_board.board_house import Shown, board, breach, suspended

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
BOARD_PASSWORD = "board-password-7"
PATIENCE_S = 60
OPTIONS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run")
EVIL = "<img src=x onerror=\"document.title='взломано'\"> & <b>жирно</b>"

if not (CHROMIUM and DRIVER) and not os.environ.get("CI"):
    pytest.skip("needs Debian's packages chromium and chromium-driver", allow_module_level=True)


@pytest.fixture
def browser() -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    for option in (*OPTIONS, "--window-size=1600,1200"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER or ""))
    yield driver
    driver.quit()


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as found:
        yield found


def until(browser: webdriver.Chrome, condition: Callable[[str], Any]) -> None:
    """Wait until the page's text fulfils a condition, without reloading it."""

    def holds(driver: webdriver.Chrome) -> bool:
        return bool(condition(driver.find_element(By.TAG_NAME, "body").text))

    WebDriverWait(browser, PATIENCE_S).until(holds)


def test_the_board_changes_by_itself(database: TtmDatabase, browser: webdriver.Chrome, stack: ExitStack):
    background = Background()
    stack.callback(background.close)
    system = stack.enter_context(serve(SystemConfig(days=1, per_day=1, suspended=1)))
    settings = {"TTM_TOKEN": "ttm-test", "TTM_KEY": KEY, "TTM_URL": system.base_url}
    settings |= {"TTM_EMAIL": "sandbox@example.org", "TTM_PASSWORD": PASSWORD}
    settings["TTM_SERVER"] = f"ws://127.0.0.1:{stack.enter_context(hub(background, settings)).port}"

    def client() -> HubClient:
        return HubClient.from_settings(Settings(settings), patience_s=3)

    config = BoardConfig(password=BOARD_PASSWORD, refresh_s=0.1)
    shown = stack.enter_context(board(database, config, client))
    browser.get(shown.url.replace("://", f"://wall:{BOARD_PASSWORD}@"))
    until(browser, lambda text: "обновляется сама" in text and "Приостановленных тикетов нет" in text)
    until(browser, lambda text: "к хабу не подключён ни один коннектор" in text)
    marker = "window.stayed = true; return document.title"
    title = browser.execute_script(marker)

    shown.suspend(suspended(501, last_comment=EVIL), suspended(502, hours=-3))
    until(browser, lambda text: EVIL in text and text.index("502") < text.index("501"))
    shown.suspend(suspended(502, hours=-3))
    until(browser, lambda text: "501" not in text and "просрочен на 3 ч" in text)
    shown.expire(breach(601, "Группа Вега"), breach(602, "Группа Вега"))
    until(browser, lambda text: "Группа Вега" in text and "день загружен полностью" in text)
    assert len(browser.find_elements(By.CSS_SELECTOR, "svg.chart rect")) == 1

    with connector(background, settings, "conn-live"):
        until(browser, lambda text: "conn-live" in text)
    until(browser, lambda text: "к хабу не подключён ни один коннектор" in text)

    assert browser.execute_script("return [window.stayed, document.title]") == [True, title]
    for said in (str(browser.get_log("browser")), browser.page_source):
        assert BOARD_PASSWORD not in said
        assert KEY not in said
    narrow(browser, shown)


def narrow(browser: webdriver.Chrome, shown: Shown) -> None:
    """On a phone nothing sticks out to the side, and each cell says what it is."""
    shown.suspend(suspended(503, last_comment="оченьдлинноесловобезпробелов" * 8))
    metrics = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    until(browser, lambda text: "503" in text)
    wide = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert browser.execute_script(wide) <= 0
    label = "return getComputedStyle(document.querySelector('.stopped td'), '::before').content"
    assert browser.execute_script(label) == '"Тикет"'
