"""The admin's pages as a person uses them in Chromium, and what they refuse."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import httpx
import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.support import expected_conditions
from selenium.webdriver.support.ui import WebDriverWait

from tests.services.scoring_api.scoring_house import ADMIN, Hook, Running, item

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture
def http(guarded: Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=guarded.url, timeout=30) as client:
        yield client


@pytest.fixture(scope="module")
def browser() -> Iterator[WebDriver]:
    if not (CHROMIUM and DRIVER) and not os.environ.get("CI"):
        pytest.skip("needs Debian's packages chromium and chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    for option in OPTIONS:
        options.add_argument(option)
    driver = webdriver.Chrome(options=options, service=Service(DRIVER or ""))
    yield driver
    driver.quit()


def fill(browser: WebDriver, name: str, text: str) -> None:
    field = browser.find_element(By.NAME, name)
    field.clear()
    field.send_keys(text)


def click(browser: WebDriver, text: str) -> None:
    found = (By.XPATH, f"//*[self::button or self::a or self::summary][normalize-space(.)='{text}']")
    WebDriverWait(browser, 30).until(expected_conditions.element_to_be_clickable(found)).click()


def see(browser: WebDriver, text: str) -> None:
    found = (By.XPATH, f"//*[contains(normalize-space(.), '{text}')]")
    WebDriverWait(browser, 30).until(expected_conditions.visibility_of_element_located(found))


def test_a_webhook_is_made_watched_switched_and_deleted(
    guarded: Running, browser: WebDriver, http: httpx.Client
):
    browser.get(f"{guarded.url}/admin")
    fill(browser, "token", "not the token")
    click(browser, "Войти")
    see(browser, "Токен не подходит")
    fill(browser, "token", ADMIN)
    click(browser, "Войти")
    see(browser, "Новый вебхук")

    fill(browser, "name", "Касса <b>№1</b>")
    fill(browser, "counter_id", "100001")
    fill(browser, "token", "oauth-typed-into-the-page")
    click(browser, "Создать")
    see(browser, "второй раз его не показать")
    secret = browser.find_element(By.ID, "secret").text
    webhook = browser.find_element(By.ID, "url").text.rsplit("/", 1)[1]
    hook = Hook(http, webhook, secret)
    batch = hook.send(item(price="1990.50", currency="RUB")).json()["batch_id"]

    click(browser, "К вебхуку")
    see(browser, "Касса <b>№1</b>")
    click(browser, batch)
    see(browser, "ожидает отправки")
    see(browser, "1990.50 RUB")
    click(browser, "Пакеты")
    see(browser, batch)
    click(browser, "Вебхуки")
    click(browser, "Касса <b>№1</b>")
    click(browser, "Отключить")
    see(browser, "Отключён")
    assert hook.send(item()).status_code == 403
    click(browser, "Включить")
    see(browser, "Включён")
    fill(browser, "name", "Касса №2")
    click(browser, "Сохранить")
    see(browser, "Касса №2")
    assert hook.send(item()).status_code == 200
    click(browser, "Удалить")
    click(browser, "Удалить вебхук")
    see(browser, "Новый вебхук")
    assert hook.send(item()).status_code == 404

    click(browser, "Журнал")
    for action in ("login.refused", "webhook.create", "webhook.change", "webhook.delete"):
        see(browser, action)
    assert "oauth-typed-into-the-page" not in browser.page_source
    click(browser, "Выйти")
    see(browser, "Токен администратора")


def session(http: httpx.Client) -> str:
    """Log in; the code of the forms."""
    answer = http.post("/admin/login", data={"token": ADMIN}, follow_redirects=True)
    return answer.text.split('name="csrf" value="')[1].split('"')[0]


def test_a_form_without_its_code_is_refused(http: httpx.Client):
    code = session(http)
    form = {"name": "x", "counter_id": "1", "token": "t"}
    assert http.post("/admin/webhooks", data=form).status_code == 403
    assert http.post("/admin/webhooks", data={**form, "csrf": "x" * 64}).status_code == 403
    assert http.post("/admin/webhooks", data={**form, "csrf": code}).status_code == 200
    with httpx.Client(base_url=http.base_url) as other:
        another = session(other)
    assert http.post("/admin/webhooks", data={**form, "csrf": another}).status_code == 403


def test_every_page_needs_a_session(http: httpx.Client):
    for path in ("/admin", "/admin/batches", "/admin/tasks", "/admin/audit"):
        assert http.get(path).headers["Location"] == "/admin/login"
    code = session(http)
    cookie = http.cookies["scoring_session"]
    http.cookies.clear()
    for forged in (cookie[:-1], f"9{cookie}", "x", "1.2.3", f"{cookie}\xe9".encode().decode("latin-1")):
        answer = http.get("/admin", headers=[(b"Cookie", f"scoring_session={forged}".encode("latin-1"))])
        assert answer.headers["Location"] == "/admin/login"
    assert http.post("/admin/webhooks", data={"csrf": code}).status_code == 303


def test_pages_cannot_be_framed_cached_or_given_scripts(http: httpx.Client):
    session(http)
    answer = http.get("/admin")
    assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
    assert answer.headers["Cache-Control"] == "no-store"
    cookie = http.post("/admin/login", data={"token": ADMIN}).headers["Set-Cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie


def test_wrong_fields_come_back_with_what_was_typed_but_the_token(http: httpx.Client):
    form = {"csrf": session(http), "name": "Моя касса", "counter_id": "нет", "token": "oauth-of-a-form"}
    answer = http.post("/admin/webhooks", data=form)
    assert answer.status_code == 422
    assert "Проверьте поля: Счётчик" in answer.text
    assert "Моя касса" in answer.text
    assert "oauth-of-a-form" not in answer.text


def test_logins_are_limited(http: httpx.Client):
    answers = [http.post("/admin/login", data={"token": "guess"}).status_code for _ in range(12)]
    assert 429 in answers
