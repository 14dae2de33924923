"""The site: the page mounted behind the guard, and the server that runs it."""

from __future__ import annotations

import socket
import sys
import threading
from typing import cast

import gradio as gr
import uvicorn
from fastapi import FastAPI

from studio.engine import Studio
from studio.errors import BadRequest
from studio.server import Guard
from studio.server import build as build_server
from studio.settings import Settings
from studio.ui import compose
from studio.ui.parts import MAX_UPLOAD
from studio.ui.strings import say
from studio.ui.theme import css, theme

KEEP_SECONDS = 24 * 3600  # copies Gradio makes for the browser; the pictures themselves stay in outputs/


def build(studio: Studio) -> gr.Blocks:
    """The whole page for one studio; the caller serves it."""
    with gr.Blocks(title=say("title"), analytics_enabled=False, delete_cache=(3600, KEEP_SECONDS)) as blocks:
        compose.build(studio)
    return blocks


def mount(app: FastAPI, studio: Studio) -> FastAPI:
    """Put the page at `/` of a server that already guards names, origins and keys."""
    outputs = studio.settings.data_dir / "outputs"
    mounted = gr.mount_gradio_app(
        app,
        build(studio),
        path="/",
        theme=theme(),
        css=css(),
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        show_error=False,
        max_file_size=MAX_UPLOAD,
        allowed_paths=[str(outputs)],
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
    )
    return cast(FastAPI, mounted)


def run(settings: Settings) -> None:
    """Serve the page and the HTTP interface until Ctrl-C.

    Raises:
        BadRequest: the address cannot be listened on.
    """
    listener = listen(settings.host, settings.port)
    guard = Guard.of(settings)
    with Studio(settings) as studio:
        _ = studio.jobs  # the worker loads the first base while the page is being opened
        app = mount(build_server(studio, guard), studio)
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2))
        _say(say("serving", address=address(settings, listener, guard.key)))
        if settings.share:
            threading.Thread(target=_share, args=(listener, guard), daemon=True).start()
        server.run(sockets=[listener])


def listen(host: str, port: int) -> socket.socket:
    """A socket on this address; port 0 takes a free one. Raises BadRequest where it is taken or is not ours."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise BadRequest(say("cannot_listen", host=host, port=port, why=error.strerror or error)) from error


def address(settings: Settings, listener: socket.socket, key: str | None) -> str:
    """The address to open in a browser, with the key in it where one is asked for."""
    everywhere = settings.host in {"", "0.0.0.0", "::"}
    host = socket.gethostname() if everywhere else settings.host
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{listener.getsockname()[1]}/" + (f"?key={key}" if key else "")


def _share(listener: socket.socket, guard: Guard) -> None:
    """Open Gradio's relay to this server and let the server answer to the relay's name."""
    from gradio import networking

    port = listener.getsockname()[1]
    link: str = networking.setup_tunnel("127.0.0.1", port, guard.key or "", None, None)
    guard.allow(link.partition("://")[2].strip("/"))
    _say(say("serving", address=f"{link.rstrip('/')}/?key={guard.key}"))


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
