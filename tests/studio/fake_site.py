"""A site without torch, and how the tests of the server ask it."""

from __future__ import annotations

import io
from pathlib import Path

from fastapi import FastAPI
from PIL import Image
from starlette.testclient import TestClient

from studio.errors import BadRequest, StorageFull
from studio.gallery import Gallery
from studio.jobs import Job, Queue
from studio.settings import Settings
from studio.specs import Catalogue, RenderRequest
from tests.studio import fake_work

KEY = "a key nobody guesses"
HERE = "http://127.0.0.1:7860"


class Site:
    """As much of a studio as the server uses: a real queue and gallery, work without torch."""

    def __init__(self, folder: Path) -> None:
        self.settings = Settings(data_dir=folder)
        self.gallery = Gallery(folder)
        self.jobs = Queue(folder / "studio.sqlite3", self.settings, entry=fake_work.ENTRY)

    def catalogue(self) -> Catalogue:
        return Catalogue(bases=(), adapters=(), methods=(), samplers=("Euler",), schedules=())

    def submit(self, request: RenderRequest) -> Job:
        if request.base == "nowhere":
            raise BadRequest("Unknown base “nowhere”; choose one of: toybox.")
        if request.base == "full":
            raise StorageFull("The disk is full.")
        if request.base == "bug":
            raise ZeroDivisionError("secret detail")
        return self.jobs.submit(request.method, request.prompt)

    def keep(self, data: bytes) -> str:
        return self.gallery.keep(data)


def client_of(app: FastAPI) -> TestClient:
    return TestClient(app, base_url=HERE, raise_server_exceptions=False, follow_redirects=False)


def png(side: int = 8) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), "red").save(buffer, "PNG")
    return buffer.getvalue()


def submission(prompt: str = "a cat", method: str = "draw", **fields: object) -> dict[str, object]:
    return {"request": {"prompt": prompt, "method": method, **fields}}
