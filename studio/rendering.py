"""A checked request -> events: the part of the engine that holds tensors. Loaded only where pictures are made."""

from __future__ import annotations

import io
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor

from pipelines import samplers, text
from pipelines.adapters import Adapter
from pipelines.composer import Composer, Prompts, find, options_of
from pipelines.conditioning import Guidance
from pipelines.deltas import Deltas
from pipelines.start import Step, Task
from pipelines.weights import reader
from studio import vocabulary
from studio.errors import RenderFailed
from studio.specs import (
    BaseInfo,
    Finished,
    Notice,
    Picture,
    Preview,
    Progress,
    RenderEvent,
    RenderRequest,
    RenderResult,
)

if TYPE_CHECKING:
    from pipelines.base import ComposedPipeline
    from studio.engine import Studio

PREVIEW_SECONDS = 0.4  # between previews; more of them slow browsers down without showing more
PREVIEW_SHARE = 10  # a preview waits ten times as long as the last one took, so that all take a tenth at most
PREVIEW_PIXELS = 256
KEPT_ADAPTERS = 8


@dataclass
class Clock:
    """Time of one render and what is left of it."""

    began: float
    sampling: float = 0.0

    def seconds(self) -> float:
        """Since the render began."""
        return time.monotonic() - self.began


@dataclass(frozen=True)
class Scene:
    """What every chunk of one render shares."""

    request: RenderRequest
    base: BaseInfo
    pipe: ComposedPipeline
    composer: Composer
    prompts: Prompts


class Renderer:
    """Renders for one studio; keeps the deltas of recently used adapters."""

    def __init__(self, studio: Studio) -> None:
        self._studio = studio
        self._deltas: dict[tuple[Any, ...], Deltas] = {}

    @torch.no_grad()  # the decorator, since a `with` around a yield would leak the mode to whoever drives this
    def events(self, request: RenderRequest, base: BaseInfo) -> Iterator[RenderEvent]:
        """Render a resolved request; closing the generator cancels, and the model is as before.

        Raises:
            StudioError: anything that went wrong, in a sentence.
        """
        clock = Clock(time.monotonic())
        yield Progress(phase="loading")
        try:
            pipe = self._studio.bases.load(request.base)
            with self._studio.bases.with_vae(pipe, request.vae):
                yield from self._render(request, base, pipe, clock)
        except torch.OutOfMemoryError as error:
            raise RenderFailed(
                f"Out of memory at {request.width}x{request.height}; "
                "use a smaller size or fewer pictures, or start with --offload model."
            ) from error

    def _render(
        self, request: RenderRequest, base: BaseInfo, pipe: ComposedPipeline, clock: Clock
    ) -> Iterator[RenderEvent]:
        adapters = self._adapters(request, base, pipe)
        scene = self._scene(request, base, pipe, adapters)
        notices = tuple(_notices(scene, adapters))
        for notice in notices:
            yield Notice(text=notice)
        assert request.seed is not None
        seeds = [request.seed + index for index in range(request.count)]
        pictures: list[Picture] = []
        rows = 0
        scheduler = samplers.scheduler(request.sampler or "", request.schedule or "", pipe.scheduler.config)
        with pipe.sampling(scheduler), scene.composer.installed():
            for first in range(0, len(seeds), pipe.batch):
                chunk = seeds[first : first + pipe.batch]
                images = yield from self._sample(scene, chunk, first, clock)
                rows += pipe.rows_spent
                yield Progress(phase="saving", seconds=clock.seconds())
                for seed, image in zip(chunk, images, strict=True):
                    pictures.append(self._save(scene, image, seed))
        result = RenderResult(
            request=request, pictures=tuple(pictures), seconds=clock.seconds(), sampling_seconds=clock.sampling,
            rows=rows, notices=notices, report=scene.composer.report(),
        )  # fmt: skip
        yield Finished(result=result)

    def _adapters(self, request: RenderRequest, base: BaseInfo, pipe: ComposedPipeline) -> list[Adapter]:
        loaded = []
        layers: dict[str, tuple[int, ...]] = {}
        for use in request.adapters:
            path = self._studio.library.find(use.name)
            key = (*_stamp(path), base.name, base.version)
            if key not in self._deltas:
                layers = layers or pipe.layer_shapes()
                self._deltas[key] = reader.read(path, layers, base.family).deltas
            self._deltas[key] = self._deltas.pop(key)  # the newest last
            text_weight = use.weight if use.text_weight is None else use.text_weight
            loaded.append(Adapter(use.name, self._deltas[key], use.weight, text_weight, use.words, use.trigger or ""))
        for stale in list(self._deltas)[: -max(KEPT_ADAPTERS, len(loaded))]:
            del self._deltas[stale]
        return loaded

    def _scene(
        self, request: RenderRequest, base: BaseInfo, pipe: ComposedPipeline, adapters: Sequence[Adapter]
    ) -> Scene:
        method = find(request.method)
        composer = method(pipe, adapters, options_of(method, request.options))
        assert request.guidance is not None and request.height is not None and request.width is not None
        prompts = Prompts(
            plain=request.prompt,
            joint=text.joint(request.prompt, adapters),
            branches=text.branches(request.prompt, adapters),
            negative=request.negative,
            images=1,
            height=request.height,
            width=request.width,
            guidance=Guidance(request.guidance, request.guidance_rescale),
            clip_skip=request.clip_skip,
        )
        return Scene(request, base, pipe, composer, prompts)

    def _sample(
        self, scene: Scene, seeds: Sequence[int], done: int, clock: Clock
    ) -> Generator[RenderEvent, None, list[Image.Image]]:
        """Draw the pictures of some seeds in one run of the loop; their value is taken by `yield from`."""
        request, pipe = scene.request, scene.pipe
        began = time.monotonic()
        cond = scene.composer.condition(replace(scene.prompts, images=len(seeds)))
        start = pipe.begin(self._task(request, seeds))
        step: Step | None = None
        shown, pause = began, PREVIEW_SECONDS
        for step in pipe.stream(scene.composer, cond, start):
            now = time.monotonic()
            yield _progress(step, len(seeds), done, request.count, clock, began)
            if now - shown >= pause and step.index + 1 < step.total and step.estimate is not None:
                yield Preview(step=step.index + 1, images=_previews(pipe, step.estimate))
                shown = time.monotonic()
                pause = max(PREVIEW_SECONDS, PREVIEW_SHARE * (shown - now))
        assert step is not None and step.latents is not None
        images = _pictures(pipe, step.latents, request)
        clock.sampling += time.monotonic() - began
        return images  # noqa: B901

    def _task(self, request: RenderRequest, seeds: Sequence[int]) -> Task:
        gallery = self._studio.gallery
        assert request.steps is not None and request.height is not None and request.width is not None
        return Task(
            steps=request.steps,
            height=request.height,
            width=request.width,
            seeds=seeds,
            picture=gallery.kept(request.image).convert("RGB") if request.image else None,
            mask=gallery.kept(request.mask).convert("L") if request.mask else None,
            strength=request.strength if request.image else 1.0,
        )

    def _save(self, scene: Scene, image: Image.Image, seed: int) -> Picture:
        alone = scene.request.model_copy(update={"seed": seed, "count": 1})
        extra = {"Model hash": scene.base.version[:10]} if scene.base.version else {}
        return self._studio.gallery.save(image, alone, infotext_extra=extra, report=scene.composer.report())


def _stamp(path: Path) -> tuple[str, int, int]:
    status = path.stat()
    return str(path), status.st_size, status.st_mtime_ns


def _notices(scene: Scene, adapters: Sequence[Adapter]) -> Iterator[str]:
    """What the user should know before the pictures arrive."""
    tokenizer = scene.pipe.tokenizer
    for title, prompt in (("prompt", scene.prompts.joint), ("negative prompt", scene.prompts.negative)):
        if cut := text.cut_part(tokenizer, prompt):
            yield f"The {title} is too long for {scene.base.title} and ends before: “{cut[:120]}”."
    known = scene.base.vocabulary
    if known:
        triggers = [adapter.trigger for adapter in adapters]
        if strange := vocabulary.unknown(scene.prompts.joint, known, triggers):
            yield f"{scene.base.title} does not know: {', '.join(strange)}."


def _progress(step: Step, images: int, done: int, count: int, clock: Clock, began: float) -> Progress:
    """Steps are counted over all pictures, so that the bar runs once."""
    finished = done * step.total + (step.index + 1) * images
    total = count * step.total
    here = (step.index + 1) * images
    each = (time.monotonic() - began) / here
    return Progress(
        phase="sampling", step=finished, total=total, seconds=clock.seconds(), left=each * (total - finished)
    )


def _previews(pipe: ComposedPipeline, estimate: Tensor) -> tuple[bytes, ...]:
    encoded = []
    for pixels in pipe.preview(estimate).nan_to_num(0.5):
        image = _image(pixels)
        scale = PREVIEW_PIXELS / max(image.size)
        image = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=80)
        encoded.append(buffer.getvalue())
    return tuple(encoded)


def _pictures(pipe: ComposedPipeline, latents: Tensor, request: RenderRequest) -> list[Image.Image]:
    """Decode, and refuse a picture of not-a-number values, which would be saved as plain black."""
    if not bool(torch.isfinite(latents).all()):
        raise RenderFailed(
            f"Sampling with {request.sampler} gave values that are not numbers; "
            "try a lower guidance or adapter weight, or start with --dtype float32."
        )
    images = []
    for one in torch.split(latents, 1):  # one at a time, since decoding needs the most memory
        pixels = pipe.decode(one)
        if not bool(torch.isfinite(pixels).all()):
            raise RenderFailed("The VAE gave values that are not numbers; start with --dtype float32 or bfloat16.")
        images.append(_image(pixels[0]))
    return images


def _image(pixels: Tensor) -> Image.Image:
    """(3, H, W) in [0, 1] -> 8-bit picture."""
    array = (pixels * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().contiguous().numpy()
    return Image.fromarray(array, "RGB")
