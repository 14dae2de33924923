"""`library` and `recall`: what there is on disk, without loading a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from pydantic import TypeAdapter
from rich.console import Console
from rich.table import Table
from rich.text import Text

from studio.cli import common
from studio.errors import BadFile
from studio.specs import AdapterInfo

library = typer.Typer(no_args_is_help=True, help="Adapters on disk.")
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@library.command("list")
def list_adapters(ctx: typer.Context, as_json: AsJson = False) -> None:
    """List every adapter; one that cannot be used says why."""
    with common.studio(ctx) as studio:
        infos = studio.library.scan()
    if as_json:
        typer.echo(TypeAdapter(list[AdapterInfo]).dump_json(infos, indent=2).decode())
        return
    rows = [(info.name, info.family or "?", str(info.rank or ""), info.trigger, info.problem or "") for info in infos]
    show(("name", "family", "rank", "trigger", "problem"), rows)


@library.command("show")
def show_adapter(ctx: typer.Context, name: str) -> None:
    """Print all that is known of one adapter as JSON, its hash included."""
    with common.studio(ctx) as studio:
        typer.echo(studio.library.info(name).model_dump_json(indent=2))


def recall(ctx: typer.Context, picture: Annotated[Path, typer.Argument(help="A PNG, JPEG or WebP file.")]) -> None:
    """Print the request that a picture carries, as JSON for `render --request`."""
    with common.studio(ctx) as studio:
        recalled = studio.gallery.read(picture, known=studio.library.scan())
    if recalled.request is None:
        raise BadFile(" ".join(recalled.notices))
    for notice in recalled.notices:
        typer.echo(notice, err=True)
    typer.echo(recalled.request.model_dump_json(indent=2))


def show(titles: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """Print a table; cells come from files, so no markup in them is followed."""
    table = Table(*titles, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)
