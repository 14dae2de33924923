"""What every test shares: no network beyond this machine, no telemetry, steady property tests."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# Set before any library reads them.
os.environ.update(HF_HUB_DISABLE_TELEMETRY="1", GRADIO_ANALYTICS_ENABLED="False", TOKENIZERS_PARALLELISM="false")
# A shared machine is slow now and then; a deadline per example would only make tests flaky.
settings.register_profile("studio", deadline=None, max_examples=50)
settings.load_profile("studio")

ROOT = Path(__file__).parent.parent
LOOPBACK = ("127.", "::1", "localhost", "0.0.0.0", socket.gethostname())


@pytest.fixture(scope="session", autouse=True)
def only_this_machine() -> Iterator[None]:
    """Refuse every connection that leaves the machine, so that a test cannot depend on the network unseen."""
    connect, look_up = socket.socket.connect, socket.getaddrinfo

    def guarded_connect(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6):
            refuse(address[0])
        connect(self, address)

    def guarded_look_up(host: Any, *rest: Any, **options: Any) -> Any:
        refuse(host)
        return look_up(host, *rest, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", guarded_connect)
        patch.setattr(socket, "getaddrinfo", guarded_look_up)
        yield


def refuse(host: Any) -> None:
    """Raise OSError for a host that is not this machine."""
    name = host.decode() if isinstance(host, bytes) else str(host or "")
    if name and not name.startswith(LOOPBACK):
        raise OSError(f"tests have no network: {name}")


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """An own data folder per test (not made yet: the studio makes it on the first write)."""
    return tmp_path / "data"


@pytest.fixture(scope="session")
def tiny_assets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An assets folder with a tiny random base of the same classes in Toybox's place."""
    from tests.pipelines import tiny

    folder = tmp_path_factory.mktemp("assets")
    base = folder / "toybox" / "base"
    tiny.sd(width=128).save_pretrained(base, safe_serialization=True)
    card = {"title": "Tiny", "version": "0123456789ab", "width": 32, "height": 32, "steps": 3, "guidance": 3.0}
    (base / "studio.json").write_text(json.dumps(card))
    return folder


@pytest.fixture
def tiny_studio(tiny_assets: Path, data_dir: Path) -> Iterator[Any]:
    """A studio on the tiny base, in its own data folder: the whole door is tested in seconds."""
    from studio.engine import Studio
    from studio.settings import Settings

    with Studio(Settings(data_dir=data_dir, assets_dir=tiny_assets, device="cpu")) as studio:
        yield studio
