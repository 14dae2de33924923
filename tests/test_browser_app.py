"""The real program in a real Chromium: `app.py` behind a key, and a picture that Toybox painted."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.browsing import browser, field, opened
from tools.browser import studio as running

# Gradio can lose a click that falls into the moment in which it closes its stream of answers; nothing else is retried.
pytestmark = [pytest.mark.browser, pytest.mark.flaky(reruns=2, only_rerun="AssertionError")]
__all__ = ["browser"]  # a fixture, found by its name
KEY = "open-sesame-1"


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """`app.py` on a free port behind a key: its address as printed, and its data folder."""
    data_dir = tmp_path_factory.mktemp("real")
    with running(data_dir, "--key", KEY) as address:
        yield address, data_dir


def test_without_the_key_there_is_no_page(browser: Browser, app: tuple[str, Path]) -> None:
    bare = app[0].partition("?")[0]
    context = browser.new_context()
    page = context.new_page()
    assert page.goto(bare).status == 401
    assert page.locator("#render").count() == 0
    assert page.request.get(f"{bare}gradio_api/info").status == 401
    assert page.request.get(f"{bare}api/v1/health").ok
    page.locator("input[name=key]").fill(KEY)
    page.keyboard.press("Enter")
    expect(page.locator("#render")).to_be_visible()
    context.close()


def test_toybox_paints_in_the_browser_without_a_decision(browser: Browser, app: tuple[str, Path]) -> None:
    with opened(browser, app[0]) as page:
        expect(page.locator("#unknown mark")).to_have_count(0)
        field(page, "seed").fill("5")
        field(page, "steps").fill("4")
        page.locator("#render").click()
        expect(page.locator("#gallery img").first).to_be_visible()
        expect(page.locator("#status")).to_contain_text("seed 5")
        saved = [path for path in (app[1] / "outputs").rglob("*.png")]
        assert len(saved) == 1
        shown = page.locator("#gallery img").first.get_attribute("src")
        assert page.request.get(str(shown)).body() == saved[0].read_bytes()
        page.get_by_role("button", name="How it was made").click()
        expect(page.locator("#infotext textarea")).to_have_value(re.compile(r"a purple boat.*\nSteps: 4", re.DOTALL))
