"""How long a newcomer waits: the real `app.py` and a real Chromium, on Toybox, each run from a fresh data folder.

Bars:
    first picture    seconds from the first page load to the first picture on the page, 20 steps with guidance
    picture          seconds in the loop and the decoder for one 128x128 picture, 20 steps with guidance, no page open

The clock of the first starts when the server has just printed its address, so the base's loading is in it.
"""

from __future__ import annotations

import platform
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, expect

from bench.report import Bar, arguments, finish
from tools.browser import chromium, studio

PATIENCE = 120_000  # ms
# Unlike a ratio of paired times, a wait depends on what else the machine does; its whole interval must meet the target
# anyway, so a wide one does no harm.
SLACK = 0.5


def main() -> int:
    """Run the bench; 0 when every bar is reached."""
    options = arguments(__doc__).parse_args()
    draw = random.Random(options.seed)
    runs, pictures = (2, 3) if options.quick else (7, 7)
    rows: list[dict[str, Any]] = []
    with chromium() as browser:
        for number in range(1, runs + 1):
            print(f"run {number} of {runs}", file=sys.stderr, flush=True)
            rows += one_run(browser, number, pictures, draw)
    waits = [row["first picture s"] for row in rows if row["picture"] == 1]
    computed = [row["compute s"] for row in rows if row["picture"] > 1]
    bars = [bar("first picture", waits, 15, draw), bar("picture", computed, 2, draw)]
    return finish(options, rows, bars, f"{platform.machine()} CPU")


def one_run(browser: Browser, number: int, pictures: int, draw: random.Random) -> Iterator[dict[str, Any]]:
    """Start, load the page, and render: a row for every picture."""
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        with studio(Path(folder)) as address:
            started = time.perf_counter()
            page = browser.new_page()
            page.set_default_timeout(PATIENCE)
            page.goto(address)
            expect(page.locator("#render")).to_be_visible(timeout=PATIENCE)
            ready = time.perf_counter()
            page.locator("#seed").locator("input, textarea").fill(str(draw.randrange(2**32)))
            clicked = time.perf_counter()
            compute = render(page, address)
            seen = time.perf_counter()
            yield {
                "run": number,
                "picture": 1,
                "server start s": started - begun,
                "page ready s": ready - started,
                "click to picture s": seen - clicked,
                "compute s": compute,
                "first picture s": seen - started,
            }
            page.goto("about:blank")  # a browser that paints previews without a graphics card takes a core of its own
            for picture in range(2, pictures + 1):
                yield {"run": number, "picture": picture, "compute s": alone(page, address, draw.randrange(2**32))}
            page.close()


def render(page: Page, address: str) -> float:
    """Click, wait for the picture, and ask the server for its time in the loop and the decoder, in seconds."""
    job_field = page.locator("#job").locator("input, textarea")
    before = job_field.input_value()
    page.locator("#render").click()
    expect(job_field).not_to_have_value(before, timeout=PATIENCE)  # the last picture may still stand there
    expect(page.locator("#gallery img").first).to_be_visible(timeout=PATIENCE)
    expect(page.locator("#render")).to_be_visible(timeout=PATIENCE)
    (job,) = page.request.get(f"{address}api/v1/jobs?limit=1").json()
    return float(job["result"]["sampling_seconds"])


def alone(page: Page, address: str, seed: int) -> float:
    """Render the same through HTTP while no page is open; seconds in the loop and the decoder."""
    asked = {"kind": "render", "request": {"prompt": "a purple boat in the meadow", "seed": seed}}
    job = page.request.post(f"{address}api/v1/jobs", data=asked).json()
    page.request.get(f"{address}api/v1/jobs/{job['id']}/events", timeout=PATIENCE)  # until the last event
    return float(page.request.get(f"{address}api/v1/jobs/{job['id']}").json()["result"]["sampling_seconds"])


def bar(name: str, seconds: list[float], target: float, draw: random.Random) -> Bar:
    """The median with the 95 % interval of a bootstrap."""
    medians = sorted(statistics.median(draw.choices(seconds, k=len(seconds))) for _ in range(2000))
    return Bar(name, statistics.median(seconds), medians[50], medians[1949], target, slack=SLACK)


if __name__ == "__main__":
    sys.exit(main())
