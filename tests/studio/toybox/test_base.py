"""The base that ships: plain diffusers opens it, it draws with any scheduler, and its card tells the truth."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler, StableDiffusionPipeline

from studio.toybox.export import CARD, weights_version
from studio.toybox.pictures import scene_batch
from studio.toybox.world import KINDS, scene, vocabulary

BASE = Path(__file__).parents[3] / "assets" / "toybox" / "base"


@cache
def pipeline() -> StableDiffusionPipeline:
    pipe = StableDiffusionPipeline.from_pretrained(BASE, safety_checker=None, use_safetensors=True)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def latents(scheduler: type[Any], prompt: str, steps: int, seed: int = 1) -> torch.Tensor:
    pipe = pipeline()
    pipe.scheduler = scheduler.from_config(pipe.scheduler.config)
    generator = torch.Generator().manual_seed(seed)
    result = pipe(prompt, num_inference_steps=steps, guidance_scale=3.0, generator=generator, output_type="latent")
    return torch.as_tensor(result.images)


def test_a_picture_has_the_default_size_and_is_not_flat() -> None:
    picture = pipeline()("a red cat", num_inference_steps=4, generator=torch.Generator().manual_seed(0)).images[0]
    assert picture.size == (128, 128)
    assert np.asarray(picture).std() > 8


@pytest.mark.parametrize("scheduler", [DPMSolverMultistepScheduler, EulerDiscreteScheduler])
def test_schedulers_agree_on_where_they_go(scheduler: type[Any]) -> None:
    """Different solvers of one equation from the same noise end near each other."""
    reference = latents(DDIMScheduler, "a blue house in the snow", 12)
    found = latents(scheduler, "a blue house in the snow", 12)
    assert bool(torch.isfinite(found).all())
    assert float((found - reference).square().mean()) < 0.35 * float(reference.square().mean())


def test_words_change_the_picture_and_the_same_seed_repeats_it() -> None:
    night, snow = (latents(DDIMScheduler, f"a red cat {place}", 6) for place in ("at night", "in the snow"))
    assert torch.equal(night, latents(DDIMScheduler, "a red cat at night", 6))
    assert float((night - snow).abs().mean()) > 0.05


def test_latents_are_normalised_and_the_codec_keeps_scenes() -> None:
    batch = scene_batch([scene(k, KINDS[k % 4]) for k in range(16)])
    vae = pipeline().vae
    with torch.no_grad():
        posterior = vae.encode(batch).latent_dist
        error = (vae.decode(posterior.mean).sample - batch).abs().mean()
    assert vae.config.scaling_factor == 1.0
    assert posterior.mean.shape == (16, 8, 16, 16)
    assert (posterior.mean.mean((0, 2, 3)).abs() < 0.35).all()
    assert ((posterior.mean.std((0, 2, 3)) - 1).abs() < 0.35).all()
    assert float(error) < 0.13, "mean absolute error of pictures in -1..1"


def test_the_card_and_the_files_are_what_they_say() -> None:
    card = json.loads((BASE / CARD).read_text(encoding="utf-8"))
    assert card["version"] == weights_version(BASE)
    assert (card["title"], card["width"], card["height"], card["steps"]) == ("Toybox", 128, 128, 20)
    assert card["vocabulary"] == vocabulary()
    files = [p for p in BASE.rglob("*") if p.is_file()]
    assert {p.suffix for p in files} == {".json", ".safetensors"}
    assert sum(p.stat().st_size for p in files) <= 48_000_000


def test_the_networks_are_shaped_as_designed() -> None:
    pipe = pipeline()
    assert pipe.unet.config.block_out_channels == [128, 192, 256]
    assert pipe.unet.config.sample_size == 16 and pipe.unet.config.in_channels == 8
    assert pipe.text_encoder.config.hidden_size == pipe.unet.config.cross_attention_dim == 128
    assert pipe.tokenizer.model_max_length == 77
    assert pipe.scheduler.config.prediction_type == "v_prediction"
