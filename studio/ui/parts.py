"""The page's own components: adapter rows and the picture with its mask, each one Gradio component of any size."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, cast

import gradio as gr
from PIL import Image

from studio.errors import BadRequest, StudioError
from studio.specs import AdapterInfo, AdapterUse
from studio.ui.strings import say, section

ASSETS = Path(__file__).resolve().parent / "assets"
MAX_UPLOAD = 50 * 2**20
SHOWN_PIXELS = 768


@cache
def script(name: str) -> str:
    """The text of one of the page's scripts or style sheets."""
    return (ASSETS / name).read_text("utf-8")


def _component(script_name: str, value: Any, **props: Any) -> gr.HTML:
    # Gradio compiles html_template as code, so it must never hold text from files: the scripts draw by themselves.
    made = gr.HTML(value, html_template="<div></div>", js_on_load=script(script_name), apply_default_css=False, **props)
    return cast(gr.HTML, made)


def adapter_rows(adapters: Sequence[AdapterInfo], family: str) -> gr.HTML:
    """The rows, empty at first; the value is a list of what `row_of` makes."""
    return _component("rows.js", [], choices=choices(adapters), family=family, text=section("rows"), elem_id="adapters")


def choices(adapters: Sequence[AdapterInfo]) -> list[dict[str, Any]]:
    """What a row offers: only what the page shows, in the library's order."""
    return [
        {
            "name": info.name,
            "title": info.title,
            "family": info.family,
            "trigger": info.trigger,
            "words": ", ".join(info.words),
            "weight": info.weight,
            "problem": info.problem,
        }
        for info in adapters
    ]


def row_of(use: AdapterUse) -> dict[str, Any]:
    """The row that `use_of` turns back into `use`."""
    return {
        "name": use.name,
        "hash": use.hash,
        "weight": use.weight,
        "words": ", ".join(use.words),
        "trigger": use.trigger or "",
        "text_weight": "" if use.text_weight is None else use.text_weight,
    }


def use_of(row: Mapping[str, Any]) -> AdapterUse:
    """One row as the request holds it.

    Raises:
        BadRequest: a weight is no number. pydantic.ValidationError: a value is out of its range.
    """
    words = (word.strip() for word in str(row.get("words") or "").split(","))
    text_weight = row.get("text_weight")
    return AdapterUse(
        name=str(row.get("name") or ""),
        hash=row.get("hash") or None,
        weight=_number("rows.weight", row.get("weight")),
        text_weight=None if text_weight in (None, "") else _number("rows.text_weight", text_weight),
        words=tuple(word for word in words if word),
        trigger=str(row.get("trigger") or "").strip() or None,
    )


def _number(label: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise BadRequest(say("not_number", label=say(label), value=str(value)[:40])) from error


def painter(keep: Callable[[bytes], str]) -> gr.HTML:
    """The picture to start from and its mask; the value holds the digests that `keep` gave, or None."""

    def server_keep(data_url: str) -> dict[str, str]:
        try:
            return {"digest": keep(_decoded(data_url))}
        except StudioError as error:
            return {"error": str(error)}

    server_keep.__name__ = "keep"  # the name under which the script calls it
    empty = {"image": None, "mask": None}
    return _component(
        "painter.js", empty, shown=empty, text=section("paint"), server_functions=[server_keep], elem_id="picture"
    )


def _decoded(data_url: str) -> bytes:
    """The bytes of a data URL. Raises BadRequest if it is none or too large."""
    text = str(data_url)
    if len(text) > MAX_UPLOAD * 4 // 3:
        raise BadRequest(say("too_large", size=len(text) * 3 // 4 // 2**20, limit=MAX_UPLOAD // 2**20))
    try:
        return base64.b64decode(text.partition("base64,")[2], validate=True)
    except binascii.Error as error:
        raise BadRequest(say("not_picture")) from error


def data_url(picture: Image.Image) -> str:
    """A picture as the painter shows it, at most `SHOWN_PIXELS` on its longer side."""
    small = picture.convert("RGB")
    small.thumbnail((SHOWN_PIXELS, SHOWN_PIXELS))
    buffer = io.BytesIO()
    small.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
