"""The SDXL family: two text encoders, a pooled vector and size conditioning."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from diffusers import StableDiffusionXLPipeline
from torch import Tensor

from pipelines.base import ComposedPipeline
from pipelines.conditioning import Embedded


class SDXLPipeline(ComposedPipeline, StableDiffusionXLPipeline):
    """diffusers' SDXL with the studio's loop."""

    family: ClassVar[str] = "sdxl"
    encoders: ClassVar[tuple[str, ...]] = ("text_encoder", "text_encoder_2")
    # A least-squares fit of RGB on SDXL latents, long in public use by previewers.
    preview_factors = (
        (0.3651, 0.4232, 0.4341),
        (-0.2533, -0.0042, 0.1068),
        (0.1076, 0.1111, -0.0362),
        (-0.3165, -0.2492, -0.2188),
    )

    text_encoder_2: Any

    def embed(self, prompt: str, negative: str | None, clip_skip: int = 1) -> Embedded:
        """Encode one prompt with both encoders.

        SDXL was trained on the layer before the last, which A1111 records as clip skip 1 or 2 alike; so only higher
        values skip further. An empty negative gives zeros where the base's config asks for them.
        """
        text, without, pooled, pooled_without = self.encode_prompt(
            prompt,
            device=self._execution_device,
            do_classifier_free_guidance=negative is not None,
            negative_prompt=negative or None,
            clip_skip=clip_skip - 2 if clip_skip > 2 else None,
        )
        dtype = self.unet.dtype
        half = None
        if negative is not None:
            half = {"embeds": without.to(dtype), "pooled": pooled_without.to(dtype)}
        return Embedded({"embeds": text.to(dtype), "pooled": pooled.to(dtype)}, half)

    def size_extras(self, height: int, width: int, dtype: torch.dtype) -> dict[str, Tensor]:
        """SDXL's micro-conditioning (arXiv 2307.01952 section 2.2): original size, crop, target size."""
        ids = self._get_add_time_ids(
            (height, width),
            (0, 0),
            (height, width),
            dtype=dtype,
            text_encoder_projection_dim=self.text_encoder_2.config.projection_dim,
        )
        return {"time_ids": ids}
