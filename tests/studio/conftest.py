"""Queues and sites on work that needs no torch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from studio.guard import Guard
from studio.jobs import Queue
from studio.server import build
from studio.settings import Settings
from tests.studio import fake_work
from tests.studio.fake_site import KEY, Site, client_of


@pytest.fixture
def open_queue(tmp_path: Path) -> Iterator[fake_work.Open]:
    """Open queues on one data folder with work that needs no torch; all are closed at the end."""
    queues = []

    def open_one(**options: Any) -> Queue:
        settings = Settings(data_dir=tmp_path)
        queue = Queue(tmp_path / "studio.sqlite3", settings, **{"entry": fake_work.ENTRY, "grace": 10.0, **options})
        queues.append(queue)
        return queue

    yield open_one
    for queue in queues:
        queue.close()


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """A FIFO: a job that reads it waits until the test writes."""
    path = tmp_path / "gate"
    os.mkfifo(path)
    return path


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One site for the tests of a module."""
    site = Site(tmp_path_factory.mktemp("data"))
    yield site
    site.jobs.close()


@pytest.fixture
def client(site: Site) -> TestClient:
    """Asks a site on loopback, which needs no key."""
    return client_of(build(site, Guard()))  # type: ignore[arg-type]


@pytest.fixture
def locked(site: Site) -> TestClient:
    """Asks a site that needs the key, without it."""
    return client_of(build(site, Guard(key=KEY)))  # type: ignore[arg-type]
