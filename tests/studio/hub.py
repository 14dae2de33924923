"""A server on this machine that speaks the few Hub endpoints a download needs, and can be told to misbehave."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SHA = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """One repository `owner/name`. `files` are its contents; `asked` lists (path, Range header) of each download."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.card: dict[str, Any] = {"license": "openrail"}
        self.gated: bool | str = False
        self.error: tuple[int, str] | None = None  # status and X-Error-Code of every answer
        self.download_error: tuple[int, str] | None = None  # of downloads only
        self.cuts: dict[str, list[int]] = {}  # path -> where each of the next downloads breaks off
        self.digests: dict[str, str] = {}  # path -> a wrong digest to announce
        self.asked: list[tuple[str, str | None]] = []
        self.headers: list[dict[str, str]] = []
        self.endpoint = ""

    def info(self) -> dict[str, Any]:
        """What the Hub's API says of the repository."""
        siblings = []
        for path, data in self.files.items():
            one: dict[str, Any] = {"rfilename": path, "size": len(data)}
            if path.endswith(".safetensors"):
                digest = self.digests.get(path, hashlib.sha256(data).hexdigest())
                one["lfs"] = {"sha256": digest, "size": len(data), "pointerSize": 130}
            siblings.append(one)
        return {"id": "owner/name", "sha": SHA, "siblings": siblings, "cardData": self.card, "gated": self.gated}


class Server(ThreadingHTTPServer):
    """Carries the hub that its answers come from."""

    def __init__(self, hub: Hub) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.hub = hub
        hub.endpoint = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *args: object) -> None:
        """Say nothing."""

    def answer(self, status: int, body: bytes = b"", error: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if error:
            self.send_header("X-Error-Code", error)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        hub, path = self.server.hub, self.path.partition("?")[0]
        hub.headers.append(dict(self.headers))
        if hub.error:
            self.answer(hub.error[0], error=hub.error[1])
        elif path in {"/api/models/owner/name", "/api/models/owner/name/revision/main"}:
            self.answer(200, json.dumps(hub.info()).encode())
        elif path.startswith("/api/models/owner/name/"):
            self.answer(404, error="RevisionNotFound")
        elif path.startswith(f"/owner/name/resolve/{SHA}/"):
            self.download(path.removeprefix(f"/owner/name/resolve/{SHA}/"))
        else:
            self.answer(404, error="RepoNotFound")

    def download(self, path: str) -> None:
        hub, asked = self.server.hub, self.headers.get("Range")
        hub.asked.append((path, asked))
        if hub.download_error and path != "model_index.json":
            self.answer(hub.download_error[0], error=hub.download_error[1])
            return
        data = hub.files[path]
        start = int(asked.removeprefix("bytes=").partition("-")[0]) if asked else 0
        body = data[start:]
        cut = hub.cuts[path].pop(0) - start if hub.cuts.get(path) else len(body)
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        self.wfile.write(body[:cut])
        self.close_connection = cut < len(body)


@contextmanager
def serving() -> Iterator[Hub]:
    """Run a hub; its address is `hub.endpoint`."""
    hub = Hub()
    server = Server(hub)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
