"""A studio for people who collect and train LoRAs: compose several of them in one picture.

    from studio import AdapterUse, RenderRequest, Settings, Studio

    with Studio(Settings(device="auto")) as studio:
        request = RenderRequest(
            prompt="a red cat left of a blue house on the beach",
            adapters=[AdapterUse(name="mug", weight=0.8)],
            seed=7,
        )
        result = studio.run(request)                # or: for event in studio.render(request): ...
        print(studio.gallery.path(result.pictures[0].name))

Importing this loads no torch: models load with the first picture.
"""

from studio.engine import Studio
from studio.errors import StudioError
from studio.gallery import Gallery, Recalled
from studio.library import Library
from studio.settings import Settings
from studio.specs import (
    AdapterInfo,
    AdapterUse,
    BaseInfo,
    Catalogue,
    Finished,
    Notice,
    Picture,
    Preview,
    Progress,
    RenderRequest,
    RenderResult,
)

__all__ = [
    "AdapterInfo",
    "AdapterUse",
    "BaseInfo",
    "Catalogue",
    "Finished",
    "Gallery",
    "Library",
    "Notice",
    "Picture",
    "Preview",
    "Progress",
    "Recalled",
    "RenderRequest",
    "RenderResult",
    "Settings",
    "Studio",
    "StudioError",
]
