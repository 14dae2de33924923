"""The real worker: a queued request is rendered by torch in another process, and cancelled there between two steps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from studio.engine import Studio
from studio.gallery import Gallery
from studio.settings import Settings
from studio.specs import Finished, Picture, Progress, RenderRequest, Stopped

REQUEST = RenderRequest(prompt="a cat", seed=7, count=2)


@pytest.fixture(scope="module")
def warm_studio(tiny_assets: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    """A studio whose worker process has imported torch and loaded the base, which takes seconds."""
    settings = Settings(data_dir=tmp_path_factory.mktemp("data"), assets_dir=tiny_assets, device="cpu")
    with Studio(settings) as studio:
        studio.submit(RenderRequest(prompt="a dog")).result()
        yield studio


def test_a_queued_request_gives_the_pictures_a_render_here_gives(warm_studio: Studio) -> None:
    *_, last = warm_studio.submit(REQUEST).events()
    assert isinstance(last, Finished)
    gallery: Gallery = warm_studio.gallery

    def saved(pictures: tuple[Picture, ...]) -> list[bytes]:
        return [gallery.path(picture.name).read_bytes() for picture in pictures]

    there, here = last.result, warm_studio.run(REQUEST)
    assert saved(there.pictures) == saved(here.pictures) and there.request == here.request


def test_a_running_render_is_cancelled_between_two_steps(warm_studio: Studio) -> None:
    job = warm_studio.submit(REQUEST.model_copy(update={"steps": 200, "sampler": "DDIM"}))
    steps = 0
    for event in job.events():
        if isinstance(event, Progress) and event.step > 0:
            steps = event.step
            job.cancel()
    assert event == Stopped() and steps < 200 and job.latest().attempts == 1
    assert warm_studio.submit(REQUEST).result().pictures  # the same process goes on
