"""Stable Diffusion 1.x and 2.x, and every base with one CLIP text encoder (Toybox)."""

from __future__ import annotations

from typing import Any, ClassVar

from diffusers import StableDiffusionPipeline
from torch import Tensor

from pipelines.base import ComposedPipeline
from pipelines.conditioning import Embedded


class SDPipeline(ComposedPipeline, StableDiffusionPipeline):
    """diffusers' Stable Diffusion with the studio's loop."""

    family: ClassVar[str] = "sd15"
    # A least-squares fit of RGB on SD1 latents, long in public use by previewers.
    preview_factors: ClassVar[tuple[tuple[float, ...], ...] | None] = (
        (0.3512, 0.2297, 0.3227),
        (0.3250, 0.4974, 0.2350),
        (-0.2829, 0.1762, 0.2721),
        (-0.2120, -0.2616, -0.7177),
    )

    tokenizer: Any
    text_encoder: Any

    def embed(self, prompt: str, negative: str | None, clip_skip: int = 1) -> Embedded:
        """Encode one prompt; `clip_skip` counts layers from the end as A1111 does (1 = the last)."""
        without = None if negative is None else {"embeds": self._encode(negative, clip_skip)}
        return Embedded({"embeds": self._encode(prompt, clip_skip)}, without)

    def _encode(self, prompt: str, clip_skip: int) -> Tensor:
        """(1, T, D). diffusers skips layers for the positive prompt only, and its way of doing so needs a
        `text_model` level that transformers 5 has removed; A1111 skips for both, and so do we."""
        prompt = self.maybe_convert_prompt(prompt, self.tokenizer)
        tokens = self.tokenizer(
            prompt,
            padding="max_length",
            max_length=self.tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        encoder = self.text_encoder
        mask = None
        if getattr(encoder.config, "use_attention_mask", False):
            mask = tokens.attention_mask.to(self._execution_device)
        ids = tokens.input_ids.to(self._execution_device)
        if clip_skip == 1:
            embeds: Tensor = encoder(ids, attention_mask=mask)[0]
        else:
            hidden = encoder(ids, attention_mask=mask, output_hidden_states=True).hidden_states
            inner = getattr(encoder, "text_model", encoder)
            embeds = inner.final_layer_norm(hidden[-min(clip_skip, len(hidden))])
        return embeds.to(dtype=self.unet.dtype)


class ToyboxPipeline(SDPipeline):
    """The embedded base: its VAE is cheap enough for exact previews."""

    family: ClassVar[str] = "toybox"
    preview_factors = None


class SD2Pipeline(SDPipeline):
    """Stable Diffusion 2.x: another text encoder, often v-prediction."""

    family: ClassVar[str] = "sd2"
