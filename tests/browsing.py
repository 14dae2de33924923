"""What the browser tests share: Chromium, the page over a studio that draws gradients, ways to find things on it."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI
from playwright.sync_api import Browser, Page, expect

from studio.specs import RenderRequest
from studio.ui import site as page_site
from tests.fakes import FakeJob, FakeStudio
from tools.browser import chromium

PATIENCE = 20_000  # ms; only a busy machine needs it
expect.set_options(timeout=PATIENCE)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One Chromium for this file."""
    with chromium() as browser:
        yield browser


@contextmanager
def served(app: FastAPI) -> Iterator[str]:
    """Serve an app from a thread on a free port; gives its address."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    server.should_exit = True
    thread.join(5)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[FakeStudio, str]]:
    """The page over a studio that draws gradients, and its address."""
    data_dir = tmp_path_factory.mktemp("data").resolve()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(os.environ, "GRADIO_TEMP_DIR", str(data_dir / "cache"))
        studio = FakeStudio(data_dir)
        with served(page_site.mount(FastAPI(), studio)) as address:
            yield studio, address


@pytest.fixture
def studio(site: tuple[FakeStudio, str]) -> Iterator[FakeStudio]:
    """The studio behind the page; a test may clear its gate to hold a job at its first step."""
    site[0].gate.set()
    yield site[0]
    site[0].gate.set()


@contextmanager
def opened(browser: Browser, address: str, **context: Any) -> Iterator[Page]:
    """A page in a context of its own, ready to be used; no error may have reached the console when it closes."""
    own = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **context})
    page = own.new_page()
    page.set_default_timeout(PATIENCE)
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("framenavigated", lambda _: errors.clear())  # Gradio complains of streams that a reload cuts
    page.goto(address)
    expect(page.locator("#render")).to_be_visible()
    expect(page.locator("#adapters .row-add")).to_be_visible()
    yield page
    assert not errors, "\n\n".join(errors)
    own.close()


@pytest.fixture
def page(browser: Browser, site: tuple[FakeStudio, str]) -> Iterator[Page]:
    """The page on a desktop."""
    with opened(browser, site[1]) as fresh:
        yield fresh


def prompt(page: Page) -> Any:
    return page.locator("#prompt textarea")


def field(page: Page, name: str) -> Any:
    return page.locator(f"#{name}").locator("input, textarea").last


def render(page: Page, studio: FakeStudio) -> tuple[FakeJob, RenderRequest]:
    """Click Render and wait for the picture; the job and what it was asked for."""
    job = page.locator("#job").locator("input, textarea")
    before = job.input_value()
    page.locator("#render").click()
    expect(job).not_to_have_value(before)  # the picture of the last job may still stand there
    expect(page.locator("#gallery img").first).to_be_visible()
    expect(page.locator("#render")).to_be_visible()
    return newest(studio)


def newest(studio: FakeStudio) -> tuple[FakeJob, RenderRequest]:
    job = list(studio.jobs.known.values())[-1]
    return job, RenderRequest.model_validate_json(job.payload)


def drop(page: Page, name: str, data: bytes) -> None:
    """Give a file to “Settings from a picture”."""
    if not page.locator("#recall").is_visible():
        page.get_by_role("button", name="Settings from a picture").click()
    page.locator("#recall input[type=file]").set_input_files({"name": name, "mimeType": "image/png", "buffer": data})
