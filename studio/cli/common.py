"""What every command needs: the settings in force, the studio, a file's bytes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import typer
from pydantic import BaseModel, Field

from studio import settings
from studio.errors import BadFile, shorten

if TYPE_CHECKING:
    from studio.engine import Studio

GLOBAL = ("data_dir", "adapter_dirs", "base_dirs", "device", "dtype", "attention", "offload")


class Extra(BaseModel):
    """Flags before the command that are no settings."""

    config: Path | None = Field(None, description="Settings as a TOML file; flags and STUDIO_* variables win.")


class Context(NamedTuple):
    """Flags given before the command."""

    config: Path | None
    given: dict[str, Any]


def load(ctx: typer.Context, **more: Any) -> settings.Settings:
    """The settings in force; raises BadRequest."""
    context: Context = ctx.obj
    return settings.load(context.config, **{**context.given, **more})


def studio(ctx: typer.Context) -> Studio:
    """A studio with the settings in force."""
    from studio.engine import Studio

    return Studio(load(ctx))


def read(path: Path) -> bytes:
    """A file that the user named; raises BadFile."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadFile(f"“{shorten(str(path))}” cannot be read: {error.strerror or error}.") from error
