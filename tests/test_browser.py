"""The page in a real Chromium: what a person clicks, and what then stands in the request, on the page and on disk."""

from __future__ import annotations

import re
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browsing import browser, drop, field, newest, opened, page, prompt, render, site, studio
from tests.fakes import FakeStudio, gradient

# Gradio can lose a click that falls into the moment in which it closes its stream of answers; nothing else is retried.
pytestmark = [pytest.mark.browser, pytest.mark.flaky(reruns=2, only_rerun="AssertionError")]
__all__ = ["browser", "page", "site", "studio"]  # fixtures, found by their names


def test_first_picture_needs_no_decision_and_its_file_fills_the_form_again(page: Page, studio: FakeStudio) -> None:
    expect(page.locator("#stage")).to_contain_text("Your picture appears here")
    field(page, "seed").fill("77")
    field(page, "steps").fill("5")
    _, asked = render(page, studio)
    assert asked.prompt and (asked.seed, asked.steps, asked.sampler) == (77, 5, "DDIM")
    expect(page.locator("#status")).to_contain_text("seed 77")

    saved = studio.gallery.path(studio.gallery.recent(1)[0].name)
    shown = page.locator("#gallery img").first.get_attribute("src")
    assert page.request.get(str(shown)).body() == saved.read_bytes()

    known = len(studio.jobs.known)
    prompt(page).fill("something else")
    field(page, "seed").fill("")
    field(page, "steps").fill("9")
    drop(page, "picture.png", saved.read_bytes())
    expect(prompt(page)).to_have_value(asked.prompt)
    expect(field(page, "seed")).to_have_value("77")
    expect(field(page, "steps")).to_have_value("5")
    assert len(studio.jobs.known) == known  # a dropped file renders nothing


def test_use_these_settings_and_reuse_seed_take_the_picture_that_is_shown(page: Page, studio: FakeStudio) -> None:
    field(page, "count").fill("2")
    field(page, "seed").fill("500")
    render(page, studio)
    page.locator("#gallery .thumbnail-lg").nth(1).click()
    field(page, "seed").fill("")
    page.get_by_role("button", name="Reuse seed").click()
    expect(field(page, "seed")).to_have_value("501")
    prompt(page).fill("changed")
    page.locator("#use").click()
    expect(prompt(page)).not_to_have_value("changed")
    expect(field(page, "count")).to_have_value("1")


def test_cancel_stops_a_run_at_its_next_step(page: Page, studio: FakeStudio) -> None:
    studio.gate.clear()
    page.locator("#render").click()
    expect(page.locator("#stage")).to_contain_text("Step 1 of 20")
    expect(page.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "5")
    expect(page.locator("#stage .previews img")).to_be_visible()
    expect(page.locator("#render")).not_to_be_visible()
    page.locator("#cancel").click()
    expect(page.locator("#status")).to_contain_text("Stopped")
    expect(page.locator("#render")).to_be_visible()
    expect(page.locator("#cancel")).not_to_be_visible()
    assert newest(studio)[0].seen[-1].kind == "stopped"


def test_a_reload_during_a_run_goes_on_with_it(page: Page, studio: FakeStudio) -> None:
    prompt(page).fill("a blue boat")
    studio.gate.clear()
    page.locator("#render").click()
    expect(page.locator("#stage")).to_contain_text("Step 1 of 20")
    expect(page).to_have_url(re.compile("job="))
    page.reload()
    expect(page.locator("#stage")).to_contain_text("Step 1 of 20")
    expect(prompt(page)).to_have_value("a blue boat")
    expect(page.locator("#cancel")).to_be_visible()
    studio.gate.set()
    expect(page.locator("#gallery img").first).to_be_visible()
    page.reload()  # and once more when it is over
    expect(page.locator("#gallery img").first).to_be_visible()


def test_two_adapters_reach_the_request_in_order_with_what_was_typed(page: Page, studio: FakeStudio) -> None:
    add = page.locator("#adapters .row-add")
    add.click()
    add.click()
    rows = page.locator("#adapters .adapter")
    expect(rows).to_have_count(2)
    assert rows.nth(1).locator("option:checked").inner_text() == "<b>Ink</b>"  # text of a file, not markup
    rows.nth(1).locator(".row-weight").fill("0.35")
    rows.nth(1).get_by_role("button", name="More").click()
    rows.nth(1).get_by_label("Its words in the prompt").fill("cat, dog#2")
    rows.nth(1).get_by_label("Trigger word").fill("inky")
    rows.nth(1).get_by_label("Weight in the text encoder").fill("0.5")
    _, asked = render(page, studio)
    assert [(use.name, use.weight, use.words) for use in asked.adapters] == [
        ("fox", 0.8, ("dog",)),
        ("style/<b>ink</b>", 0.35, ("cat", "dog#2")),
    ]
    assert (asked.adapters[1].trigger, asked.adapters[1].text_weight) == ("inky", 0.5)

    rows.first.get_by_role("button", name="Remove").click()
    assert [use.name for use in render(page, studio)[1].adapters] == ["style/<b>ink</b>"]
    page.locator("#adapters .adapter").get_by_role("button", name="Remove").click()
    page.locator("#use").click()
    expect(rows).to_have_count(1)  # the saved picture brings its adapter back
    expect(rows.first.locator(".row-weight")).to_have_value("0.35")


def test_words_are_chips_and_unknown_ones_are_marked(page: Page) -> None:
    prompt(page).fill("a dog")
    prompt(page).evaluate("box => box.setSelectionRange(2, 2)")
    page.locator("#chips button", has_text="blue").click()
    expect(prompt(page)).to_have_value("a blue dog")
    prompt(page).fill("a hoouse <lora:nothing:1> and <b>zebra</b> in the forest")
    expect(page.locator("#unknown mark").first).to_have_text("hoouse → house?")
    expect(page.locator("#unknown mark")).to_have_count(3)  # and “and”, “zebra”: tags are no words
    prompt(page).fill("a cat in the forest")
    expect(page.locator("#unknown mark")).to_have_count(0)


def test_another_base_brings_its_own_defaults_and_adapters(page: Page, studio: FakeStudio) -> None:
    page.locator("#base input").click()
    page.get_by_role("option", name="Another base").click()
    expect(field(page, "width")).to_have_value("64")
    expect(field(page, "steps")).to_have_value("7")
    expect(page.locator("#words")).not_to_be_visible()
    page.locator("#adapters .row-add").click()
    _, asked = render(page, studio)
    assert (asked.base, asked.height, asked.schedule) == ("other", 96, "Karras")
    assert [use.name for use in asked.adapters] == ["portrait"]


def test_a_methods_options_appear_with_it_and_only_then(page: Page, studio: FakeStudio) -> None:
    expect(page.locator("#options-switch")).not_to_be_visible()
    page.locator("#method input").click()
    page.get_by_role("option", name="Switch").click()
    expect(page.locator("#options-switch")).to_be_visible()
    page.locator("#option-switch-order input").click()
    page.get_by_role("option", name="shuffled").click()
    _, asked = render(page, studio)
    assert (asked.method, asked.options) == ("switch", {"share": 0.5, "order": "shuffled"})


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("width", "100", "Width 100 is not divisible by 8; choose 96."),
        ("steps", "0", "Steps = 0 does not fit: should be greater than or equal to 1."),
        ("seed", "<i>x</i>", "Seed = <i>x</i> does not fit: should be a valid integer"),
    ],
)
def test_bad_input_is_one_sentence(page: Page, studio: FakeStudio, name: str, value: str, sentence: str) -> None:
    known = len(studio.jobs.known)
    field(page, name).fill(value)
    page.locator("#render").click()
    expect(page.get_by_role("alert").filter(has_text=sentence[:20])).to_contain_text(sentence)
    expect(page.locator("body")).not_to_contain_text("Traceback")
    assert len(studio.jobs.known) == known
    expect(page.locator("#render")).to_be_visible()


def test_a_failed_job_says_why_in_plain_text(page: Page) -> None:
    prompt(page).fill("fail")
    page.locator("#render").click()
    expect(page.locator("#status [role=alert]")).to_have_text("The picture came out as <i>nothing</i>.")
    expect(page.locator("#render")).to_be_visible()


def hostile_png(width: int, text: int) -> bytes:
    """A PNG that claims `width` x `width` pixels and unpacks to `text` characters of settings."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, width, 8, 2, 0, 0, 0)
    packed = b"parameters\0\0" + zlib.compress(b"x" * text)
    parts = chunk(b"IHDR", head) + chunk(b"zTXt", packed) + chunk(b"IDAT", zlib.compress(b"\0" * 64))
    return b"\x89PNG\r\n\x1a\n" + parts + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "data",
    [hostile_png(100_000, 10), hostile_png(8, 50_000_000), b"\x89PNG\r\n\x1a\n", b"<script>alert(1)</script>"],
    ids=["pixels", "text", "cut", "script"],
)
def test_a_hostile_picture_is_refused_in_one_sentence(page: Page, data: bytes) -> None:
    before = prompt(page).input_value()
    drop(page, "evil.png", data)
    expect(page.locator("#status [role=alert]")).to_be_visible()
    expect(prompt(page)).to_have_value(before)


def test_a_picture_and_a_painted_mask_become_digests(page: Page, studio: FakeStudio, tmp_path: Path) -> None:
    gradient(3, 64, 64).save(tmp_path / "start.png")
    page.locator("#picture input[type=file]").set_input_files(tmp_path / "start.png")
    canvas = page.locator("#picture canvas")
    expect(canvas).to_be_visible()
    _, asked = render(page, studio)
    assert asked.image and asked.mask is None and asked.strength == 0.75
    assert studio.gallery.kept_path(asked.image).read_bytes() == (tmp_path / "start.png").read_bytes()

    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box
    page.mouse.move(box["x"] + 20, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + 80, box["y"] + 40, steps=4)
    with page.expect_response(re.compile("component_server")):
        page.mouse.up()
    _, masked = render(page, studio)
    assert masked.image == asked.image and masked.mask
    mask = studio.gallery.kept(masked.mask).convert("L")
    assert mask.size == (64, 64) and mask.getextrema() == (0, 255)

    page.locator("#picture").get_by_role("button", name="Remove picture").click()
    assert render(page, studio)[1].image is None
    page.locator("#recent button").nth(1).click()
    expect(page.locator("#status")).to_have_text("")
    page.locator("#use").click()
    expect(canvas).to_be_visible()  # the picture comes back with the settings
    assert render(page, studio)[1].mask == masked.mask


def test_a_file_that_is_no_picture_cannot_be_started_from(page: Page) -> None:
    page.locator("#picture input[type=file]").set_input_files(
        {"name": "evil.png", "mimeType": "image/png", "buffer": hostile_png(100_000, 10)}
    )
    expect(page.locator("#picture [role=alert]")).not_to_be_empty()
    expect(page.locator("#picture canvas")).not_to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_both_themes_fit_phone_and_desktop(
    browser: Browser, site: tuple[FakeStudio, str], studio: FakeStudio, scheme: Any, width: int
) -> None:
    with opened(browser, site[1], color_scheme=scheme, viewport={"width": width, "height": 800}) as page:
        page.locator("#adapters .row-add").click()
        page.locator("#adapters .row-button").first.click()
        render(page, studio)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        dark = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)[0] < 100")
        assert dark == (scheme == "dark")


def test_no_request_leaves_this_machine(browser: Browser, site: tuple[FakeStudio, str], studio: FakeStudio) -> None:
    with opened(browser, site[1]) as page:
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.reload()
        render(page, studio)
        assert asked and all(url.startswith((site[1], "data:", "blob:")) for url in asked)


# ---- the real thing: app.py in a process of its own, its worker, Toybox, and a key
