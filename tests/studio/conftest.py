"""A studio whose Toybox is a tiny random base of the same classes, so that the whole door is tested in seconds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from studio.engine import Studio
from studio.settings import Settings


@pytest.fixture(scope="session")
def tiny_assets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An assets folder with a random base in Toybox's place."""
    from tests.pipelines import tiny

    folder = tmp_path_factory.mktemp("assets")
    base = folder / "toybox" / "base"
    tiny.sd(width=128).save_pretrained(base, safe_serialization=True)
    card = {"title": "Tiny", "version": "0123456789ab", "width": 32, "height": 32, "steps": 3, "guidance": 3.0}
    (base / "studio.json").write_text(json.dumps(card))
    return folder


@pytest.fixture
def tiny_studio(tiny_assets: Path, data_dir: Path) -> Iterator[Studio]:
    """A studio on the random base, in its own data folder."""
    with Studio(Settings(data_dir=data_dir, assets_dir=tiny_assets, device="cpu")) as studio:
        yield studio
