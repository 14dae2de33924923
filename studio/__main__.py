"""`python -m studio`: the studio from the command line. Every command has --help."""

from __future__ import annotations

import logging
import sys
from typing import Any

import typer
from typer.exceptions import TyperException

from studio.cli import bases, common, files, flags, render, serve
from studio.errors import StudioError
from studio.settings import Settings

CANCELLED = 130  # what shells give a program that Ctrl-C ended

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
    help="Compose adapters in pictures.",
)  # fmt: skip


@app.callback()
@flags.derived((Settings, common.GLOBAL), (common.Extra, ("config",)))
def start(ctx: typer.Context, given: dict[str, Any], extra: dict[str, Any]) -> None:
    """Compose adapters in pictures, from the command line."""
    ctx.obj = common.Context(extra.get("config"), given)


app.command("render")(render.render)
app.command("recall")(files.recall)
app.command("serve")(serve.serve)
app.add_typer(files.library, name="library")
app.add_typer(bases.bases, name="bases")


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return the exit code: 0, 2 for anything a user can mend, 130 after Ctrl-C."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        code: int | None = app(arguments, standalone_mode=False)
    except StudioError as error:
        typer.echo(str(error), err=True)
        return 2
    except TyperException as error:
        typer.echo(error.format_message(), err=True)
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        typer.echo("Cancelled.", err=True)
        return CANCELLED
    return code or 0


if __name__ == "__main__":
    sys.exit(main())
