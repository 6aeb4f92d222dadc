"""The Dagster UI as a person uses it: the catalogue, an asset's page, a materialization that succeeds."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support import expected_conditions
from selenium.webdriver.support.ui import WebDriverWait

from resources.postgres import EmbeddedPostgres
from sandbox.bitrix24 import PortalConfig, serve

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
PATIENCE_S = 120  # two cores, everything starting at once

if not (CHROMIUM and DRIVER) and not os.environ.get("CI"):
    pytest.skip("needs Debian's packages chromium and chromium-driver", allow_module_level=True)

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
    "--window-size=1600,1200",
)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_for_http(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    pytest.fail(f"the webserver did not start:\n{log.read_text()[-3000:]}")


@pytest.fixture(scope="module")
def dagster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Webserver and daemon with a PostgreSQL, a warehouse and a portal of their own; gives the address."""
    folder = tmp_path_factory.mktemp("ui")
    # a folder without .env: the one of the checkout belongs to the user
    for name in ("etl_assets", "resources", "sensors", "schedules", "workspace.yaml", "pyproject.toml"):
        (folder / name).symlink_to(ROOT / name)
    home = folder / "home"
    home.mkdir()
    (home / "dagster.yaml").symlink_to(ROOT / "dagster.yaml")
    postgres = EmbeddedPostgres(folder / "postgres")
    postgres.start()
    port = free_port()
    with serve(PortalConfig(deals=60, rate_limit=None)) as portal:
        settings = {
            **os.environ,
            "BITRIX24_WEBHOOK_URL": portal.webhook_url,
            "CLICKHOUSE_URL": f"chdb://{folder}/warehouse",
            "DAGSTER_HOME": str(home),
            "DAGSTER_POSTGRES_URL": postgres.url,
            "DAGSTER_WEBSERVER_URL": f"http://127.0.0.1:{port}",
            "SVOD_STATE_DIR": str(folder),
            # only what the test starts may run
            "BITRIX24_SCHEDULES": json.dumps(dict.fromkeys(("crm_deal", "crm_currency"), "0 0 1 1 *")),
        }
        programs = Path(sys.executable).parent
        log = folder / "dagster.log"
        with log.open("wb") as output:
            started = [
                subprocess.Popen(
                    [programs / name, *arguments], cwd=folder, env=settings, stdout=output, stderr=output
                )
                for name, arguments in (
                    ("dagster-webserver", ["-w", "workspace.yaml", "-p", str(port)]),
                    ("dagster-daemon", ["run", "-w", "workspace.yaml"]),
                )
            ]
            try:
                wait_for_http(f"http://127.0.0.1:{port}/server_info", started[0], log)
                yield f"http://127.0.0.1:{port}"
            finally:
                for process in started:
                    process.terminate()
                for process in started:
                    process.wait(60)
                postgres.stop()


@pytest.fixture
def browser() -> Iterator[WebDriver]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    for option in OPTIONS:
        options.add_argument(option)
    driver = webdriver.Chrome(options=options, service=Service(DRIVER or ""))
    yield driver
    driver.quit()


def see(browser: WebDriver, text: str) -> WebElement:
    """Wait until an element with this text is on the page."""
    found = (By.XPATH, f"//*[contains(normalize-space(text()), {json.dumps(text, ensure_ascii=False)})]")
    return WebDriverWait(browser, PATIENCE_S).until(expected_conditions.visibility_of_element_located(found))


def click(browser: WebDriver, text: str) -> None:
    found = (By.XPATH, f"//button[contains(normalize-space(.), {json.dumps(text)})]")
    WebDriverWait(browser, PATIENCE_S).until(expected_conditions.element_to_be_clickable(found)).click()


def test_the_catalogue_leads_to_an_asset_that_materializes(dagster: str, browser: WebDriver) -> None:
    browser.get(f"{dagster}/assets/bitrix24")
    see(browser, "crm_deal")
    see(browser, "crm_currency")

    browser.get(f"{dagster}/assets/bitrix24/crm_currency")
    see(browser, "Currencies and their rates.")
    see(browser, "crm.currency.list")
    see(browser, "data-platform")
    see(browser, "Thousands separator")

    click(browser, "Materialize")
    see(browser, "Launched run")
    browser.get(f"{dagster}/runs")
    see(browser, "Success")

    browser.get(f"{dagster}/assets/bitrix24/crm_currency")
    see(browser, "Row count")
    browser.get(f"{dagster}/assets/bitrix24/crm_currency?view=checks")
    see(browser, "rejected_rows")


def test_a_day_of_an_incremental_asset_materializes_from_its_page(dagster: str, browser: WebDriver) -> None:
    browser.get(f"{dagster}/assets/bitrix24/crm_deal")
    see(browser, "Partitions")
    click(browser, "Materialize")
    click(browser, "Latest")
    dialog = see(browser, "to materialize bitrix24 / crm_deal")
    click(browser, "Launch")
    # the page has to send the request before it may be left
    WebDriverWait(browser, PATIENCE_S).until(expected_conditions.staleness_of(dialog))
    browser.get(f"{dagster}/assets/bitrix24/crm_deal?view=events")
    see(browser, "dagster/partition_row_count")
