"""Where a run begins: timesteps, first latents, and what inpainting keeps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from pipelines import samplers

if TYPE_CHECKING:
    from pipelines.base import ComposedPipeline


@dataclass(frozen=True)
class Task:
    """What to begin: steps, size in pixels, one seed a picture, and for img2img a picture, mask and strength."""

    steps: int
    height: int
    width: int
    seeds: Sequence[int]
    picture: Image.Image | None = None
    mask: Image.Image | None = None  # white is redrawn
    strength: float = 1.0
    eta: float = 0.0


@dataclass(frozen=True)
class Step:
    """One turn of the loop. `total` counts scheduler steps, not asked steps; options speak in fractions of it."""

    index: int
    total: int
    t: Tensor
    first_order: bool = True
    noise: dict[str, Any] = field(default_factory=dict)
    latents: Tensor | None = None  # (images, C, h, w) after the step
    estimate: Tensor | None = None  # the finished latents as guessed now, where the scheduler tells

    @property
    def fraction(self) -> float:
        """How far the run is before this step, in [0, 1)."""
        return self.index / self.total

    def after(self, latents: Tensor, estimate: Tensor | None) -> Step:
        """This step with what came out of it."""
        return replace(self, latents=latents, estimate=latents if estimate is None else estimate)


@dataclass
class Start:
    """First latents (images, C, h, w) float32, the timesteps to walk, and the known part of an inpainted picture."""

    latents: Tensor
    timesteps: Tensor
    generators: list[torch.Generator]
    noise_arguments: dict[str, Any]
    channels: Tensor | None = None  # (images, 1 + C, h, w) for a 9-channel inpainting U-Net
    mask: Tensor | None = None  # (images, 1, h, w), 1 = redraw
    known: Tensor | None = None  # clean latents of the given picture
    noise: Tensor | None = None
    add_noise: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None

    @classmethod
    def of(cls, pipe: ComposedPipeline, task: Task) -> Start:
        """Set timesteps on the pipeline's scheduler and draw noise on the CPU in float32, whatever the device.

        The order of random draws is diffusers' own (encode, then noise), so that pictures match its pipelines bit
        for bit.

        Raises:
            BadRequest: the strength leaves no step to run.
        """
        device, scheduler = pipe._execution_device, pipe.scheduler
        generators = [torch.Generator("cpu").manual_seed(seed) for seed in task.seeds]
        scheduler.set_timesteps(task.steps, device=device)
        shape = (
            1,
            int(pipe.vae.config.latent_channels),
            task.height // pipe.vae_scale_factor,
            task.width // pipe.vae_scale_factor,
        )

        def noise() -> Tensor:
            drawn = [torch.randn(shape, generator=generator, dtype=torch.float32) for generator in generators]
            return torch.cat(drawn).to(device)

        arguments = pipe.noise_arguments(generators, task.eta)
        if task.picture is None:
            if hasattr(scheduler, "set_begin_index"):
                scheduler.set_begin_index(0)
            return cls(noise() * scheduler.init_noise_sigma, scheduler.timesteps, generators, arguments)
        timesteps = _later_timesteps(scheduler, task)
        pixels = pipe.image_processor.preprocess(task.picture, height=task.height, width=task.width).float()
        # Copies, for an expanded view loses the memory format, on which the convolutions' last bits depend.
        pixels = torch.cat([pixels] * len(generators))
        # Inpainting the whole way starts from pure noise; img2img at 1.0 from the first noise level.
        anew = task.mask is not None and task.strength == 1.0
        informed = task.mask is not None and pipe.unet.config.in_channels == 2 * shape[1] + 1
        known = None if anew and informed else pipe.to_latents(pixels, generators).to(device)
        if known is not None and task.mask is not None:
            known = known.contiguous()  # as diffusers' inpainting has it, and its img2img has not: the same last bits
        drawn = noise()
        if anew or known is None:
            latents = drawn * scheduler.init_noise_sigma
        else:
            latents = scheduler.add_noise(known, drawn, timesteps[:1].repeat(len(generators)))
        start = cls(latents, timesteps, generators, arguments)
        if task.mask is not None:
            full = _binary_mask(task).to(pixels.device)  # (1, 1, H, W)
            start.mask = F.interpolate(full, size=shape[-2:]).to(device).repeat(len(generators), 1, 1, 1)
            start.known, start.noise, start.add_noise = known, drawn, scheduler.add_noise
            if informed:
                masked = pipe.to_latents(pixels * (full < 0.5), generators).to(device)
                start.channels = torch.cat([start.mask, masked], dim=1)
            else:
                noise()  # diffusers encodes the masked picture even then; its draw comes before those of the steps
        return start

    def keep(self, latents: Tensor, step: Step) -> Tensor:
        """Put the known part back at this step's noise level (4-channel inpainting); else the latents as they are."""
        if self.mask is None or self.channels is not None:
            return latents
        assert self.known is not None and self.noise is not None and self.add_noise is not None
        known = self.known
        if step.index < len(self.timesteps) - 1:
            next_t = self.timesteps[step.index + 1 : step.index + 2]
            known = self.add_noise(known, self.noise, next_t)
        return (1 - self.mask) * known + self.mask * latents


def _later_timesteps(scheduler: Any, task: Task) -> Tensor:
    """Drop the first (1 - strength) of the schedule, as diffusers' img2img does."""
    kept = samplers.kept_steps(task.steps, task.strength)
    first = (task.steps - kept) * scheduler.order
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(first)
    timesteps: Tensor = scheduler.timesteps[first:]
    return timesteps


def _binary_mask(task: Task) -> Tensor:
    from diffusers.image_processor import VaeImageProcessor

    assert task.mask is not None
    processor = VaeImageProcessor(
        vae_scale_factor=1, do_normalize=False, do_binarize=True, do_convert_grayscale=True, do_resize=True
    )
    mask: Tensor = processor.preprocess(task.mask, height=task.height, width=task.width)
    return mask.float()
