"""`python -m studio render`: one request from flags and files, drawn in this process."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from pydantic import BaseModel, ConfigDict, Field
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from studio import gallery
from studio.cli import common, flags
from studio.errors import BadFile, BadRequest, shorten
from studio.specs import AdapterUse, Finished, Notice, RenderEvent, RenderRequest, RenderResult
from studio.specs import Progress as Step

if TYPE_CHECKING:
    from studio.engine import Studio

FIELDS = (
    "prompt", "negative", "base", "method", "seed", "count", "steps", "guidance", "guidance_rescale", "sampler",
    "schedule", "clip_skip", "vae", "strength",
)  # fmt: skip


class Extra(BaseModel):
    """What a request says in another way than by one flag for one field."""

    model_config = ConfigDict(populate_by_name=True, extra="forbid")

    adapter: tuple[str, ...] = Field((), description="NAME[:WEIGHT[:TEXT_WEIGHT]][:word=NOUN][:trigger=WORD]; repeat.")
    option: tuple[str, ...] = Field((), description="NAME=VALUE, an option of the method; repeat.")
    size: str | None = Field(None, description="WIDTHxHEIGHT in pixels.")
    image: Path | None = Field(None, description="A picture to start from.")
    mask: Path | None = Field(None, description="White where that picture is redrawn.")
    request: str | None = Field(None, description="A request as JSON, a file or - for standard input; flags win.")
    out: Path | None = Field(None, description="Also put the pictures into this folder.")
    as_json: bool = Field(False, alias="json", description="Print the result as JSON.")


@flags.derived((RenderRequest, FIELDS), (Extra, tuple(Extra.model_fields)))
def render(ctx: typer.Context, given: flags.Given, more: flags.Given) -> None:
    """Draw pictures. Prints their files, or the whole result with --json; progress goes to standard error."""
    extra = flags.validated(Extra, more)
    with common.studio(ctx) as studio:
        result = draw(studio, request_of(studio, given, extra))
        paths = [studio.gallery.path(picture.name) for picture in result.pictures]
        if extra.out:
            seeds = (picture.seed for picture in result.pictures)
            copies = zip(paths, seeds, strict=True)
            paths = [gallery.write_next(extra.out, seed, path.read_bytes()) for path, seed in copies]
        typer.echo(result.model_dump_json(indent=2) if extra.as_json else "\n".join(map(str, paths)))


def request_of(studio: Studio, given: Mapping[str, Any], extra: Extra) -> RenderRequest:
    """Put a request together: the file's, with every given flag over it.

    Raises:
        BadRequest, BadFile: a value, or a file, that does not fit.
    """
    values: dict[str, Any] = _read_request(extra.request) if extra.request else {}
    values |= given
    if extra.size:
        values["width"], values["height"] = size(extra.size)
    if extra.adapter:
        values["adapters"] = [adapter(text) for text in extra.adapter]
    for name, path in (("image", extra.image), ("mask", extra.mask)):
        if path:
            values[name] = studio.keep(common.read(path))
    if extra.option:
        values["options"] = {**values.get("options", {}), **dict(map(_option, extra.option))}
    request = flags.validated(RenderRequest, values)
    return _with_typed_options(request) if extra.option else request


def adapter(text: str) -> AdapterUse:
    """Read `NAME[:WEIGHT[:TEXT_WEIGHT]][:word=NOUN]...[:trigger=WORD]`; raises BadRequest naming the part."""
    name, *parts = text.split(":")
    values: dict[str, Any] = {"name": name}
    words = []
    for part in parts:
        key, equals, value = part.partition("=")
        if not equals and "weight" not in values:
            values["weight"] = key
        elif not equals and "text_weight" not in values:
            values["text_weight"] = key
        elif key == "word" and value:
            words.append(value)
        elif key == "trigger":
            values["trigger"] = value
        else:
            raise BadRequest(
                f"“{shorten(part)}” in --adapter {shorten(text)} is not understood; "
                "write NAME:WEIGHT:TEXT_WEIGHT, then word=NOUN or trigger=WORD."
            )
    return flags.validated(AdapterUse, {**values, "words": words})


def size(text: str) -> tuple[str, str]:
    """Read `WIDTHxHEIGHT`; raises BadRequest."""
    width, cross, height = text.lower().partition("x")
    if not (cross and width.isdecimal() and height.isdecimal()):
        raise BadRequest(f"--size {shorten(text)} is no size; write it as 512x768.")
    return width, height


def _option(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise BadRequest(f"--option {shorten(text)} gives no value; write NAME=VALUE.")
    if value[:1] not in ("[", "{"):
        return name, value
    try:
        return name, json.loads(value)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"--option {shorten(text)} is not JSON: {error}.") from error


def _with_typed_options(request: RenderRequest) -> RenderRequest:
    """Values come as text; the method's schema gives them their types, so that the saved request holds numbers."""
    from pipelines import composer

    options = composer.options_of(composer.find(request.method), request.options)
    return request.model_copy(update={"options": options.model_dump(mode="json", exclude_unset=True)})


def _read_request(source: str) -> dict[str, Any]:
    text = sys.stdin.buffer.read() if source == "-" else common.read(Path(source))
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadFile(f"The request “{shorten(source)}” is not JSON: {error}.") from error
    if not isinstance(values, dict):
        raise BadFile(f"The request “{shorten(source)}” is not a JSON object.")
    return values


def draw(studio: Studio, request: RenderRequest) -> RenderResult:
    """Render with a progress bar; closing the generator, on Ctrl-C too, leaves the studio as it was."""
    with closing(studio.render(request)) as events:  # type: ignore[type-var]
        return follow(events)


def follow(events: Iterable[RenderEvent]) -> RenderResult:
    """Show events on standard error until the result."""
    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[left]}")
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("loading", total=None, left="")
        for event in events:
            if isinstance(event, Step):
                left = "" if event.left is None else f"{event.left:.0f} s left"
                total = event.total or None
                bar.update(task, description=event.phase, completed=event.step, total=total, left=left)
            elif isinstance(event, Notice):
                console.print(event.text, markup=False)
            elif isinstance(event, Finished):
                return event.result
    raise AssertionError("a render ends with its result or an error")
