"""Contact sheets: what the base draws for prompts it should know, and what the codec makes of drawn scenes."""

from __future__ import annotations

from random import Random

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from PIL import Image

from .pictures import scene_batch, sheet, to_pictures
from .world import BACKGROUNDS, CLASSES, COLOURS, KINDS, scene


def prompts(count: int, seed: int) -> list[str]:
    """Return one-object prompts that go through all classes, colours and backgrounds."""
    rng = Random(f"prompts {seed}")
    colours, places = list(COLOURS), list(BACKGROUNDS.values())
    named = [f"{colours[(k + rng.randrange(8)) % 8]} {CLASSES[k % 12]} {rng.choice(places)}" for k in range(count)]
    return [f"{'an' if text.startswith('o') else 'a'} {text}" for text in named]


def sample_sheet(pipe: StableDiffusionPipeline, texts: list[str], guidance: float, seed: int) -> Image.Image:
    """Draw one picture per text with 20 steps in one batch."""
    generators = [torch.Generator().manual_seed(seed + k) for k in range(len(texts))]
    pictures = pipe(
        texts, num_inference_steps=20, guidance_scale=guidance, height=128, width=128, generator=generators
    ).images
    return sheet(pictures, 8)


def codec_sheet(vae: AutoencoderKL, seed: int) -> Image.Image:
    """Drawn scenes in the first row of each pair, their round trip through the codec in the second."""
    scenes = [scene(seed + k, kind) for kind in KINDS for k in range(8)]
    batch = scene_batch(scenes)
    with torch.no_grad():
        back = vae.decode(vae.encode(batch.to(vae.dtype)).latent_dist.mean).sample
    drawn, seen = to_pictures(batch), to_pictures(back)
    pairs = [p for k in range(0, len(drawn), 8) for p in (*drawn[k : k + 8], *seen[k : k + 8])]
    return sheet(pairs, 8)
