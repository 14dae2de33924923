"""The page. It sees the studio's catalogue, jobs and gallery, and never torch, diffusers or `pipelines`.

`studio.ui.site` builds and serves it; importing this package alone loads no Gradio.
"""

from __future__ import annotations

import os

from studio.settings import Settings

__all__ = ["serve"]


def serve(settings: Settings) -> None:
    """Serve the page until Ctrl-C; raises BadRequest where the address cannot be listened on."""
    # Read by the libraries when they are imported, so these come first: nothing is reported to anyone, and the copies
    # Gradio makes for the browser stay in the data folder.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ["GRADIO_TEMP_DIR"] = str(settings.data_dir / "cache")
    from studio.ui.site import run

    run(settings)
