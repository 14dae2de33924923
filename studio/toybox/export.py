"""From checkpoints to a folder that plain `StableDiffusionPipeline.from_pretrained` opens."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline

from .base import BaseStage, make_scheduler, make_unet
from .loop import checkpoint_path, load_average
from .recipe import Recipe
from .text import TextStage
from .vae import PolishStage, VaeStage, decoder_of, fold_statistics
from .world import SIDE, vocabulary

CARD = "studio.json"


@dataclass(frozen=True)
class Defaults:
    """What the base draws best with."""

    size: int = SIDE
    steps: int = 20
    guidance: float = 4.0


def make_codec(recipe: Recipe, folder: Path) -> AutoencoderKL:
    """Return the trained codec in float32: latent statistics folded in, the decoder polished if that was done."""
    path = folder / "codec"
    if not path.exists():
        stage = VaeStage(recipe, torch.float32)
        load_average(checkpoint_path(folder, stage.name), stage.modules)
        fold_statistics(stage.vae, recipe.seed, recipe.statistics)
        stage.vae.save_pretrained(path, safe_serialization=True)
    codec = AutoencoderKL.from_pretrained(path, use_safetensors=True)
    if checkpoint_path(folder, PolishStage.name).exists():
        load_average(checkpoint_path(folder, PolishStage.name), decoder_of(codec))
    return codec.eval().requires_grad_(False)


def make_base_stage(recipe: Recipe, folder: Path, dtype: torch.dtype, device: str = "cpu") -> BaseStage:
    """Return the base's stage on the codec and text encoder that the earlier stages left in `folder`."""
    lesson = TextStage(recipe)
    load_average(checkpoint_path(folder, lesson.name), lesson.modules)
    codec = make_codec(recipe, folder)
    return BaseStage(recipe, codec, lesson.text, lesson.tokenizer, folder, dtype, device)


def load_pipeline(recipe: Recipe, folder: Path) -> tuple[StableDiffusionPipeline, int]:
    """Return the pipeline of the newest checkpoints' averages in float32, and the steps its denoiser was trained."""
    lesson, unet = TextStage(recipe), make_unet(recipe)
    steps = load_average(checkpoint_path(folder, BaseStage.name), [unet, lesson.text])
    pipe = StableDiffusionPipeline(
        vae=make_codec(recipe, folder),
        text_encoder=lesson.text,
        tokenizer=lesson.tokenizer,
        unet=unet,
        scheduler=make_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe, steps


def load_shipped(folder: Path) -> StableDiffusionPipeline:
    """Return an exported base as stock diffusers opens it."""
    pipe = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def export(recipe: Recipe, folder: Path, target: Path, defaults: Defaults = Defaults()) -> str:  # noqa: B008 - frozen
    """Write the newest base to `target` as fp16 safetensors, replacing it as a whole; returns the version hash."""
    pipe, steps = load_pipeline(recipe, folder)
    half = target.with_name(target.name + ".part")
    shutil.rmtree(half, ignore_errors=True)
    pipe.to(dtype=torch.float16).save_pretrained(half, safe_serialization=True)
    version = weights_version(half)
    card = {
        "title": "Toybox",
        "version": version,
        "width": defaults.size,
        "height": defaults.size,
        "steps": defaults.steps,
        "guidance": defaults.guidance,
        "pictures": steps * recipe.base.batch,
        "vocabulary": vocabulary(),
    }
    (half / CARD).write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    _tidy(half)
    shutil.rmtree(target, ignore_errors=True)
    half.replace(target)
    return version


def _tidy(folder: Path) -> None:
    for path in folder.rglob("*.safetensors"):
        path.chmod(0o644)  # written for the owner alone, but another user may run the studio
    # Unless told otherwise diffusers opens its own models in float32, but transformers its own as their config says.
    _edit(folder / "text_encoder" / "config.json", {"dtype": "float32"})
    _edit(folder / "vae" / "config.json", {"_name_or_path": ""})  # else the folder it was trained in


def _edit(path: Path, changes: dict[str, str]) -> None:
    config = {**json.loads(path.read_text(encoding="utf-8")), **changes}
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def weights_version(folder: Path) -> str:
    """Return a hash of all weights in a base folder, 12 hex digits."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.safetensors")):
        digest.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:12]
