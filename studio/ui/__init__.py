"""The page. It sees the studio's catalogue, jobs and gallery, and never torch, diffusers or `pipelines`."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import gradio as gr
from fastapi import FastAPI

from studio.ui import compose
from studio.ui.parts import MAX_UPLOAD
from studio.ui.strings import say
from studio.ui.theme import css, theme

if TYPE_CHECKING:
    from studio.engine import Studio

__all__ = ["build", "mount"]

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
