"""`bases`: what can be rendered with, and fetching more."""

from __future__ import annotations

import shutil
from typing import Annotated

import typer
from pydantic import TypeAdapter

from studio.cli import common
from studio.cli.files import AsJson, show
from studio.specs import BaseInfo

bases = typer.Typer(no_args_is_help=True, help="Bases on disk and on the Hub.")


@bases.command("list")
def list_bases(ctx: typer.Context, as_json: AsJson = False) -> None:
    """List every base that can be used."""
    with common.studio(ctx) as studio:
        infos = studio.bases.infos()
    if as_json:
        typer.echo(TypeAdapter(tuple[BaseInfo, ...]).dump_json(infos, indent=2).decode())
        return
    rows = [(info.name, info.family, f"{info.width}x{info.height}", info.licence or "?") for info in infos]
    show(("name", "family", "size", "licence"), rows)


@bases.command("get")
def get(
    ctx: typer.Context,
    identifier: Annotated[str, typer.Argument(metavar="ID", help="owner/name or owner/name@revision.")],
    half: Annotated[bool, typer.Option("--half", help="16-bit weights where there are some: half the size.")] = False,
    file: Annotated[str | None, typer.Option(help="Which file, where there are several single ones.")] = None,
) -> None:
    """Fetch a base from the Hub: safetensors only; a second try goes on where the first one stopped."""
    from studio import download

    data_dir = common.load(ctx).data_dir
    wanted = download.plan(identifier, half=half, file=file)
    existing = next(folder for folder in (data_dir, *data_dir.parents) if folder.is_dir())
    free = download.human(shutil.disk_usage(existing).free)
    typer.echo(f"{wanted.name}, revision {wanted.revision}, licence: {wanted.licence or 'not stated'}", err=True)
    typer.echo(f"{len(wanted.parts)} files, {download.human(wanted.size)}; {free} of disk are free", err=True)
    download.fetch(wanted, data_dir, report=lambda line: typer.echo(line, err=True))
    typer.echo(f"Ready: --base {wanted.name}", err=True)
