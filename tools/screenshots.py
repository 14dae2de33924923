"""The pictures of the page in docs/images, taken from the real page on Toybox: `python -m tools.screenshots`."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, expect

from tools.browser import ROOT, chromium, studio

IMAGES = ROOT / "docs" / "images"
PATIENCE = 120_000  # ms
SHOTS: dict[str, dict[str, Any]] = {
    "compose-light": {"color_scheme": "light", "viewport": {"width": 1360, "height": 860}},
    "compose-dark": {"color_scheme": "dark", "viewport": {"width": 1360, "height": 860}},
    "phone-light": {"color_scheme": "light", "viewport": {"width": 390, "height": 1180}},
    "phone-dark": {"color_scheme": "dark", "viewport": {"width": 390, "height": 1180}},
}


def main() -> int:
    """Render one picture, then take every shot of the page with it."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, studio(Path(folder)) as address, chromium() as browser:
        job = first_pictures(browser, address)
        for name, look in SHOTS.items():
            shoot(browser, job, look, IMAGES / f"{name}.png")
            sys.stdout.write(f"docs/images/{name}.png\n")
    return 0


def first_pictures(browser: Browser, address: str) -> str:
    """Render what the page proposes, with a fixed seed; the address under which the result can be opened again."""
    page = browser.new_page()
    page.goto(address)
    expect(page.locator("#render")).to_be_visible(timeout=PATIENCE)
    page.locator("#seed").locator("input, textarea").fill("7")
    page.locator("#render").click()
    expect(page.locator("#gallery img").first).to_be_visible(timeout=PATIENCE)
    return page.url


def shoot(browser: Browser, job: str, look: dict[str, Any], path: Path) -> None:
    """One picture of the page with the result on it."""
    page = browser.new_page(**look, device_scale_factor=1.5)
    page.goto(job)
    expect(page.locator("#gallery img").first).to_be_visible(timeout=PATIENCE)
    expect(page.locator("#status")).to_contain_text("Done", timeout=PATIENCE)
    page.wait_for_load_state("load")
    page.evaluate("Promise.all([...document.images].map(image => image.decode().catch(() => null)))")
    page.evaluate("scrollTo(0, 0)")
    page.screenshot(path=path, animations="disabled")
    page.close()


if __name__ == "__main__":
    sys.exit(main())
