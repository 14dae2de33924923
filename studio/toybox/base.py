"""The denoiser of the Toybox: a small UNet2DConditionModel, and the stage that trains it and the text encoder."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from .recipe import Recipe, StageRecipe
from .shards import Shards
from .speech import spoken
from .text import tokenize
from .world import scene

# Scenes of each kind in a batch of 64, from this share of the training on: one object before three.
_DIET: tuple[tuple[float, dict[str, int]], ...] = (
    (0.0, {"one": 58, "two": 4, "portrait": 2}),
    (0.7, {"one": 44, "two": 14, "three": 2, "portrait": 4}),
)
_USES = 5.0  # how often a scene is drawn from its kind, on average, while new ones are still encoded


def make_unet(recipe: Recipe) -> UNet2DConditionModel:
    """Return a denoiser with random weights for (B, 8, 16, 16) latents; words are read at 16x16 and 8x8."""
    torch.manual_seed(recipe.seed)
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=recipe.latent_channels,
        out_channels=recipe.latent_channels,
        block_out_channels=recipe.unet_widths,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=recipe.text_width,
        attention_head_dim=recipe.heads,  # diffusers reads it as the number of heads: few, wide ones train fastest
    )


def make_scheduler() -> DDIMScheduler:
    """Return Stable Diffusion's noise schedule with v-prediction; its config makes any diffusers scheduler."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


class BaseStage:
    """Trains denoiser and text encoder: v-prediction, min-SNR weights, captions dropped for guidance."""

    name = "base"

    def __init__(  # noqa: PLR0913 - the parts of the base, each made by an earlier stage
        self,
        recipe: Recipe,
        vae: AutoencoderKL,
        text: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        folder: Path,
        dtype: torch.dtype,
        device: str = "cpu",
    ) -> None:
        self.recipe: StageRecipe = recipe.base
        self.whole = recipe
        self.tokenizer = tokenizer
        self.unet = make_unet(recipe).to(device=device, dtype=dtype)
        # Fused attention's backward is slow on CPUs; spelled out it is a fraction of the step.
        self.unet.set_attn_processor(AttnProcessor())
        self.text = text.to(device=device, dtype=dtype)
        self.modules: list[nn.Module] = [self.unet, self.text]
        self.shards = Shards(vae.to(device=device, dtype=dtype), folder, recipe.shard, recipe.seed)
        self.signal = make_scheduler().alphas_cumprod.to(device)

    def loss(self, step: int, rng: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Loss of the batch of `step`; logs the unweighted error of noisy and of clean pictures."""
        latents, captions = self._batch(step, rng)
        x = latents.to(self.unet.device).float()
        count = len(x)
        # One timestep from each of `count` equal parts of the schedule: less chance in the gradient.
        spread = (torch.randperm(count, generator=rng) + torch.rand(count, generator=rng)) / count
        t = (spread * len(self.signal)).long().to(x.device)
        noise = torch.randn(x.shape, generator=rng).to(x)
        keep = self.signal[t].view(-1, 1, 1, 1)  # alpha-bar: share of the variance that is signal
        noisy, aim = keep.sqrt() * x + (1 - keep).sqrt() * noise, keep.sqrt() * noise - (1 - keep).sqrt() * x
        states = self.text(tokenize(self.tokenizer, captions).to(x.device)).last_hidden_state
        found = self.unet(noisy.to(self.unet.dtype), t, states).sample.float()
        error = (found - aim).square().mean((1, 2, 3))
        snr = (keep / (1 - keep)).flatten()
        loss = (error * snr.clamp(max=self.whole.gamma) / (snr + 1)).mean()
        late = t > len(self.signal) // 2
        return loss, {"noisy": float(error[late].mean().detach()), "clear": float(error[~late].mean().detach())}

    def _batch(self, step: int, rng: torch.Generator) -> tuple[Tensor, list[str]]:
        latents, captions = [], []
        for kind, count in diet(step, self.recipe).items():
            fresh = 1 + int(eaten(kind, step, self.recipe) / _USES) // self.whole.shard
            ready = min(self.whole.scenes, self.whole.shard * fresh)
            for index in torch.randint(ready, (count,), generator=rng).tolist():
                latents.append(self.shards.latents(kind, index))
                captions.append(spoken(scene(self.shards.scene_seed(index), kind), step))
        silent = torch.rand(len(captions), generator=rng) < self.whole.no_caption
        return torch.stack(latents), ["" if s else c for c, s in zip(captions, silent.tolist(), strict=True)]


def diet(step: int, recipe: StageRecipe) -> dict[str, int]:
    """How many scenes of each kind the batch of `step` holds."""
    shares = [d for start, d in _DIET if step >= round(start * recipe.steps)][-1]
    counts = {kind: round(recipe.batch * n / 64) for kind, n in shares.items()}
    counts["one"] += recipe.batch - sum(counts.values())
    return counts


def eaten(kind: str, step: int, recipe: StageRecipe) -> int:
    """How many scenes of a kind all batches before `step` held."""
    starts = [round(start * recipe.steps) for start, _ in _DIET]
    ends = [*starts[1:], recipe.steps]
    return sum(
        max(0, min(step, end) - start) * diet(start, recipe).get(kind, 0)
        for start, end in zip(starts, ends, strict=True)
    )
