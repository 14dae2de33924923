"""Settings: one frozen value from flags, environment (`STUDIO_*`) and an optional TOML file; never global."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from studio.errors import BadRequest

ROOT = Path(__file__).resolve().parent.parent


class Settings(BaseSettings):
    """Where things lie and on what they run."""

    model_config = SettingsConfigDict(env_prefix="STUDIO_", frozen=True, extra="forbid")

    data_dir: Path = Field(ROOT / "data", description="Everything the studio writes.")
    assets_dir: Path = Field(ROOT / "assets", description="What ships with the studio; only read.")
    adapter_dirs: tuple[Path, ...] = Field((), description="More adapter folders (A1111, ComfyUI); only read.")
    base_dirs: tuple[Path, ...] = Field((), description="More folders of bases; only read.")
    device: Literal["auto", "cuda", "mps", "cpu"] = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    attention: Literal["auto", "sdpa", "xformers"] = "auto"
    offload: Literal["auto", "none", "model", "sequential"] = "auto"
    host: str = Field("127.0.0.1", description="Address the server listens on.")
    port: int = Field(7860, ge=0, le=65535)
    share: bool = Field(False, description="Also reachable through Gradio's public relay.")
    key: str | None = Field(None, min_length=8, description="Access key; made and printed when needed and not given.")
    host_names: tuple[str, ...] = Field((), description="Further names this server may be addressed by.")

    @field_validator("data_dir", "assets_dir")
    @classmethod
    def _absolute(cls, path: Path) -> Path:
        return path.expanduser().resolve()

    @property
    def public(self) -> bool:
        """Whether the page can be reached from another machine, so that a key is required."""
        return self.share or self.host not in {"127.0.0.1", "localhost", "::1"}


def load(config: Path | None = None, **flags: Any) -> Settings:
    """Build settings: flags (None = not given) over environment over the TOML file over defaults.

    Raises:
        BadRequest: the file is missing or not TOML, or a value does not fit; names the field.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        from_file = tomllib.loads(config.read_text("utf-8")) if config else {}
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadRequest(f"The settings file “{config}” cannot be read: {error}.") from error
    try:
        from_environment = Settings().model_dump(exclude_unset=True)
        return Settings(**{**from_file, **from_environment, **given})
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise BadRequest(f"Setting “{field}” = {first['input']!r} does not fit: {first['msg']}.") from error
