"""The one denoising loop, and what surrounds it: conditioning rows, guidance, starting latents, decoding.

`ComposedPipeline` is mixed into diffusers' own pipeline classes (`sd.py`, `sdxl.py`), so loading, prompt encoding,
schedulers and the VAE stay theirs. A composition method is a `Composer`; it never sees the loop.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg
from torch import Tensor, nn

from pipelines import samplers
from pipelines.conditioning import Conditioning, Embedded, assemble
from pipelines.start import Start, Step, Task

if TYPE_CHECKING:
    from pipelines.composer import Composer, Prompts


class ComposedPipeline(ABC):
    """What every family shares; mixed in *before* the diffusers class."""

    family: ClassVar[str]
    denoiser: ClassVar[str] = "unet"
    encoders: ClassVar[tuple[str, ...]] = ("text_encoder",)
    preview_factors: ClassVar[tuple[tuple[float, ...], ...] | None] = None

    # From the diffusers class this is mixed into:
    scheduler: Any
    tokenizer: Any
    vae: Any
    unet: Any
    vae_scale_factor: int
    image_processor: Any
    _execution_device: torch.device
    get_guidance_scale_embedding: Callable[..., Tensor]

    batch: int = 1  # pictures that fit in one call; set by whoever chose the device
    rows_spent: int = 0  # samples sent through the denoiser since `stream` began
    _estimate: Tensor | None = None

    @abstractmethod
    def embed(self, prompt: str, negative: str | None, clip_skip: int = 1) -> Embedded:
        """Encode one prompt; `negative=None` leaves the unconditional half out. Tensors are (1, ...)."""

    def size_extras(self, height: int, width: int, dtype: torch.dtype) -> dict[str, Tensor]:
        """Denoiser arguments that follow from the picture's size, each (1, ...)."""
        return {}

    def condition(self, texts: Sequence[str], prompts: Prompts) -> Conditioning:
        """Encode one prompt a branch under the adapters now in force and lay the rows out."""
        guided = prompts.guidance.scale > 1 and self.unet.config.time_cond_proj_dim is None
        negative = prompts.negative if guided else None
        branches = [self.embed(text, negative, prompts.clip_skip) for text in texts]
        return self.assemble(branches, prompts)

    def assemble(self, branches: Sequence[Embedded], prompts: Prompts) -> Conditioning:
        """Rows for encoded branches, with this family's size conditioning and distilled guidance."""
        dtype = branches[0].text["embeds"].dtype
        extras = self.size_extras(prompts.height, prompts.width, dtype)
        distilled = self._distilled_guidance(prompts.guidance.scale)
        return assemble(branches, prompts.images, prompts.guidance, extras, distilled)

    def _distilled_guidance(self, scale: float) -> Tensor | None:
        """(1, E) the guidance scale as an input, for bases that were distilled to take it (LCM)."""
        width = self.unet.config.time_cond_proj_dim
        if width is None:
            return None
        embedding: Tensor = self.get_guidance_scale_embedding(torch.tensor([scale - 1.0]), embedding_dim=width)
        return embedding

    # ---- the loop ------------------------------------------------------------------------------------------------

    def stream(self, composer: Composer, cond: Conditioning, start: Start) -> Iterator[Step]:
        """Denoise, yielding each step with the latents after it; never switches gradients on or off itself."""
        self.rows_spent = 0
        latents = start.latents
        if start.channels is not None:
            cond = cond.with_channels(start.channels)
        for step in self.schedule(start):
            latents = self.advance(composer, cond.at(step), latents, step, start)
            yield step.after(latents, self._estimate)

    def advance(self, composer: Composer, cond: Conditioning, latents: Tensor, step: Step, start: Start) -> Tensor:
        """One scheduler step: steer, predict, step, keep. Latents are (images, C, h, w) float32."""
        if step.first_order:
            latents = composer.steer(latents, step, cond)
        prediction = composer.predict(latents, step, cond)
        output = self.scheduler.step(prediction, step.t, latents, **step.noise)
        self._estimate = samplers.estimate(self.scheduler, output)
        return start.keep(output.prev_sample, step)

    def schedule(self, start: Start) -> Iterator[Step]:
        """The steps of this run; a second-order scheduler has more of them than were asked for."""
        total = len(start.timesteps)
        for index, t in enumerate(start.timesteps):
            # Heun and kin alternate a full step with a correction at the same noise level.
            first_order = bool(getattr(self.scheduler, "state_in_first_order", True))
            yield Step(index=index, total=total, t=t, first_order=first_order, noise=start.noise_arguments)

    def denoise(self, latents: Tensor, step: Step, cond: Conditioning) -> Tensor:
        """Call the network once for all rows of `cond`: (images, C, h, w) -> (rows, C, h, w), float32.

        Latents stay float32 whatever the network's type, so that schedulers draw their noise in float32 on the CPU.
        """
        x = self.scheduler.scale_model_input(latents, step.t)
        if cond.images is not None:
            x = x[cond.images]  # (rows, C, h, w)
        if cond.channels is not None:
            extra = cond.channels if cond.images is None else cond.channels[cond.images]
            x = torch.cat([x, extra], dim=1)
        self.rows_spent += x.shape[0]
        prediction: Tensor = self.unet(
            x.to(cond.embeds.dtype),
            step.t,
            encoder_hidden_states=cond.embeds,
            timestep_cond=cond.timestep_cond,
            added_cond_kwargs=cond.extras or None,
            return_dict=False,
            **cond.arguments,
        )[0]
        return prediction.float()

    def guide(self, prediction: Tensor, cond: Conditioning) -> Tensor:
        """Combine the halves: (rows, C, h, w) -> (branches * images, C, h, w), branch-major.

        Classifier-free guidance (arXiv 2207.12598 eq. 6) and the rescaling of arXiv 2305.08891 eq. 15-16. Without
        unconditional rows (guidance <= 1, or a base with distilled guidance) the prediction passes unchanged.
        """
        if not cond.unconditional:
            return prediction
        sizes = [cond.unconditional, len(cond.rows) - cond.unconditional]
        without, with_text = prediction.split_with_sizes(sizes)
        if without.shape != with_text.shape:  # one unconditional shared by every branch
            without = without.repeat(with_text.shape[0] // without.shape[0], 1, 1, 1)
        guided = without + cond.guidance.scale * (with_text - without)
        if cond.guidance.rescale > 0:
            guided = rescale_noise_cfg(guided, with_text, guidance_rescale=cond.guidance.rescale)
        return guided

    # ---- before and after the loop -------------------------------------------------------------------------------

    @contextmanager
    def sampling(self, scheduler: Any) -> Iterator[None]:
        """Use this scheduler inside the block; the pipeline's own comes back on exit, error and cancel."""
        own = self.scheduler
        self.scheduler = scheduler
        try:
            yield
        finally:
            self.scheduler = own
            self._estimate = None

    def begin(self, task: Task) -> Start:
        """Set the timesteps and draw the first latents of a run; see `pipelines.start`."""
        return Start.of(self, task)

    def noise_arguments(self, generators: list[torch.Generator], eta: float) -> dict[str, Any]:
        """The extra arguments this scheduler's `step` takes."""
        accepted = inspect.signature(self.scheduler.step).parameters
        given = {"eta": eta, "generator": generators}
        return {name: value for name, value in given.items() if name in accepted}

    def to_latents(self, pixels: Tensor, generators: list[torch.Generator]) -> Tensor:
        """Encode pictures (B, 3, H, W) in [-1, 1] to scaled latents (B, C, h, w), one generator a picture."""
        encoded = [
            self.vae.encode(pixels[i : i + 1].to(self.vae.device, self.vae.dtype)).latent_dist.sample(generator)
            for i, generator in enumerate(generators)
        ]
        latents = torch.cat(encoded).float()
        scaling = float(self.vae.config.scaling_factor)
        mean, std = self._latent_statistics(latents)
        if mean is not None and std is not None:
            return (latents - mean) * scaling / std
        return latents * scaling

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (B, C, h, w) -> pictures (B, 3, H, W) in [0, 1], float32."""
        mean, std = self._latent_statistics(latents)
        if mean is not None and std is not None:
            latents = latents * std / self.vae.config.scaling_factor + mean
        else:
            latents = latents / self.vae.config.scaling_factor
        pixels: Tensor = self.vae.decode(latents.to(self.vae.device, self.vae.dtype), return_dict=False)[0]
        return (pixels.float() * 0.5 + 0.5).clamp(0, 1)

    def preview(self, estimate: Tensor) -> Tensor:
        """A cheap look at latents (B, C, h, w) -> (B, 3, h', w') in [0, 1].

        A linear map of latent channels to RGB where the family knows one; a base as small as Toybox is decoded.
        """
        if self.preview_factors is None:
            return self.decode(estimate)
        factors = estimate.new_tensor(self.preview_factors)  # (C, 3)
        return (torch.einsum("bchw,cr->brhw", estimate, factors) * 0.5 + 0.5).clamp(0, 1)

    def layers(self) -> dict[str, nn.Module]:
        """Every layer an adapter may change: 'unet.path' or 'text_encoder.path' -> its Linear or Conv2d."""
        from pipelines.adapters import AdaptedLayer

        found: dict[str, nn.Module] = {}
        for component in (self.denoiser, *self.encoders):
            for path, module in getattr(self, component).named_modules():
                assert not isinstance(module, AdaptedLayer), "layers() must be asked before adapters are installed"
                if isinstance(module, nn.Linear | nn.Conv2d):
                    found[f"{component}.{path}"] = module
        return found

    def layer_shapes(self) -> dict[str, tuple[int, ...]]:
        """The weight shape of every layer an adapter may change, as `layers`."""
        return {path: tuple(layer.weight.shape) for path, layer in self.layers().items()}  # type: ignore[arg-type]

    def _latent_statistics(self, latents: Tensor) -> tuple[Tensor | None, Tensor | None]:
        config = self.vae.config
        mean, std = getattr(config, "latents_mean", None), getattr(config, "latents_std", None)
        if mean is None or std is None:
            return None, None
        shape = (1, -1, 1, 1)
        return latents.new_tensor(mean).view(shape), latents.new_tensor(std).view(shape)
