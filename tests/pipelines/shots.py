"""One picture asked of our loop and of stock diffusers, so that tests can compare latents."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import diffusers
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from pipelines import samplers
from pipelines.adapters import Adapter, adapted
from pipelines.base import ComposedPipeline
from pipelines.composer import Composer, Prompts
from pipelines.conditioning import Conditioning, Guidance
from pipelines.methods.merge import Merge
from pipelines.start import Start, Task

# Our sampler names as diffusers' own users would set them up.
SCHEDULERS: dict[str, tuple[type[Any], dict[str, Any]]] = {
    "DPM++ 2M": (diffusers.DPMSolverMultistepScheduler, {}),
    "DPM++ 2M Karras": (diffusers.DPMSolverMultistepScheduler, {"use_karras_sigmas": True}),
    "DPM++ 2M SDE": (diffusers.DPMSolverMultistepScheduler, {"algorithm_type": "sde-dpmsolver++"}),
    "Euler": (diffusers.EulerDiscreteScheduler, {}),
    "Euler a": (diffusers.EulerAncestralDiscreteScheduler, {}),
    "DDIM": (diffusers.DDIMScheduler, {"clip_sample": False, "set_alpha_to_one": False}),
    "UniPC": (diffusers.UniPCMultistepScheduler, {}),
    "Heun": (diffusers.HeunDiscreteScheduler, {}),
    "LCM": (diffusers.LCMScheduler, {"clip_sample": False, "set_alpha_to_one": False}),
}


@dataclass(frozen=True)
class Shot:
    """What to draw; small enough that a whole render takes a fraction of a second."""

    sampler: str = "DDIM"
    prompt: str = "a cat"
    negative: str = ""
    guidance: float = 5.0
    rescale: float = 0.0
    steps: int = 4
    seeds: tuple[int, ...] = (3, 4)
    width: int = 32
    height: int = 32
    strength: float = 1.0
    picture: Image.Image | None = None
    mask: Image.Image | None = None
    clip_skip: int = 1

    @property
    def task(self) -> Task:
        """The same for `begin`."""
        return Task(self.steps, self.height, self.width, self.seeds, self.picture, self.mask, self.strength)

    @property
    def prompts(self) -> Prompts:
        """The same for a composer, without triggers."""
        guidance = Guidance(self.guidance, self.rescale)
        return Prompts(
            plain=self.prompt, joint=self.prompt, branches=(), negative=self.negative, images=len(self.seeds),
            height=self.height, width=self.width, guidance=guidance, clip_skip=self.clip_skip,
        )  # fmt: skip


class Beside(Composer):
    """Merge with the adapters beside the weights, as quantised bases need it."""

    name = "beside"
    title = "Beside"

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Unfused."""
        with adapted(self.pipe, self.adapters) as routes:
            routes.everywhere()
            yield

    def condition(self, prompts: Prompts) -> Conditioning:
        """The joint prompt."""
        return self.pipe.condition([prompts.joint], prompts)


def photo(seed: int = 0, width: int = 32, height: int = 32) -> Image.Image:
    """A picture of noise, which has no structure that could hide a shift."""
    pixels = torch.randint(0, 256, (height, width, 3), generator=torch.Generator().manual_seed(seed))
    return Image.frombytes("RGB", (width, height), bytes(pixels.flatten().tolist()))


def spot(width: int = 32, height: int = 32) -> Image.Image:
    """A mask with a white disc off the middle."""
    mask = Image.new("L", (width, height))
    ImageDraw.Draw(mask).ellipse((4, 7, width * 0.6, height * 0.7), fill=255)
    return mask


def begun(pipe: Any, shot: Shot, composer: Composer) -> tuple[Conditioning, Start]:
    """Conditioning and start of a run; call inside `sampling` and `installed`."""
    return composer.condition(shot.prompts), pipe.begin(shot.task)


@torch.no_grad()
def ours(pipe: Any, shot: Shot, adapters: Sequence[Adapter] = (), method: type[Composer] = Merge) -> Tensor:
    """Final latents (images, C, h, w) of our loop."""
    assert isinstance(pipe, ComposedPipeline)
    composer = method(pipe, adapters, method.Options())
    with pipe.sampling(samplers.scheduler(shot.sampler, "Automatic", pipe.scheduler.config)), composer.installed():
        cond, start = begun(pipe, shot, composer)
        latents = [step.latents for step in pipe.stream(composer, cond, start)][-1]
    assert latents is not None
    return latents


def _class(pipe: Any, shot: Shot) -> type[Any]:
    task = "" if shot.picture is None else "Img2Img" if shot.mask is None else "Inpaint"
    model = "StableDiffusionXL" if pipe.family == "sdxl" else "StableDiffusion"
    cls: type[Any] = getattr(diffusers, f"{model}{task}Pipeline")
    return cls


def plain(pipe: Any, shot: Shot) -> Any:
    """A stock diffusers pipeline of the same parts, for what the shot asks."""
    extra = {} if pipe.family == "sdxl" else {"requires_safety_checker": False}
    stock = _class(pipe, shot)(**pipe.components, **extra)
    cls, settings = SCHEDULERS[shot.sampler]
    stock.scheduler = cls.from_config(pipe.scheduler.config, **settings)
    stock.set_progress_bar_config(disable=True)
    return stock


@torch.no_grad()
def theirs(stock: Any, shot: Shot) -> Tensor:
    """Final latents of a stock pipeline; one picture and generator a row, so that rows stand alone."""
    count = len(shot.seeds)
    arguments: dict[str, Any] = {"width": shot.width, "height": shot.height}
    if shot.picture is not None:
        arguments = {"image": [shot.picture] * count, "strength": shot.strength}
    if shot.mask is not None:
        arguments |= {"mask_image": shot.mask, "width": shot.width, "height": shot.height}
    if shot.rescale:
        arguments["guidance_rescale"] = shot.rescale
    generators = [torch.Generator().manual_seed(seed) for seed in shot.seeds]
    latents: Tensor = stock(
        shot.prompt,
        negative_prompt=shot.negative or None,
        num_images_per_prompt=count,
        num_inference_steps=shot.steps,
        guidance_scale=shot.guidance,
        generator=generators,
        output_type="latent",
        **arguments,
    ).images
    return latents
