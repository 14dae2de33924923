"""`python -m studio serve`: the page and the HTTP interface, as `app.py` starts them."""

from __future__ import annotations

import typer

from studio.cli import common, flags
from studio.settings import Settings

FIELDS = ("host", "port", "share", "key", "host_names")


@flags.derived((Settings, FIELDS))
def serve(ctx: typer.Context, given: flags.Given) -> None:
    """Serve the page until Ctrl-C."""
    from studio.ui import serve

    serve(common.load(ctx, **given))
