"""`python -m studio.toybox`: train the base, look at it, write it to `assets`."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from studio.errors import StudioError

if TYPE_CHECKING:
    import torch

    from .loop import Stage

ROOT = Path(__file__).resolve().parent.parent.parent
log = logging.getLogger("studio.toybox")
app = typer.Typer(add_completion=False, no_args_is_help=True, help="The Toybox: its world and the base trained on it.")


class Precision(StrEnum):
    """What forward and backward compute with; weights are always kept in float32."""

    auto = "auto"
    bf16 = "bf16"
    fp32 = "fp32"


Folder = Annotated[Path, typer.Option(help="Where checkpoints and encoded scenes are kept.")]
Seed = Annotated[int, typer.Option(help="Another seed trains another base.")]
Stop = Annotated[int | None, typer.Option(help="Stop after this step of the stage (it continues from there).")]
Cores = Annotated[int, typer.Option(help="Threads; 0 yields to other programs. A fixed count repeats bit for bit.")]
Type = Annotated[Precision, typer.Option(help="auto times both on this machine.")]
Device = Annotated[str, typer.Option(help="cpu, cuda or mps.")]
TRAINING = ROOT / "data" / "toybox-training"
ASSETS = ROOT / "assets" / "toybox" / "base"


STAGES: dict[str, tuple[str, Precision]] = {
    "vae": ("Train the picture codec.", Precision.auto),
    "text": ("Teach the text encoder what captions mean.", Precision.fp32),
    "base": ("Train the denoiser and the text encoder together; needs vae and text.", Precision.auto),
    "polish": ("Train the codec's decoder on; latents stay as they are.", Precision.auto),
}


def _add_stage(name: str) -> None:
    text, usual = STAGES[name]

    def run(
        folder: Folder = TRAINING,
        seed: Seed = 0,
        stop: Stop = None,
        threads: Cores = 0,
        dtype: Type = usual,
        device: Device = "cpu",
    ) -> None:
        _train(name, folder, seed, stop, threads, dtype, device)

    app.command(name, help=text)(run)


for _name in STAGES:
    _add_stage(_name)


@app.command(name="all")
def everything(
    folder: Folder = TRAINING, seed: Seed = 0, threads: Cores = 0, device: Device = "cpu", target: Path = ASSETS
) -> None:
    """Train all stages from where they are and write the base."""
    for name, (_, dtype) in STAGES.items():
        _train(name, folder, seed, None, threads, dtype, device)
    export(folder, seed, target)


@app.command()
def export(folder: Folder = TRAINING, seed: Seed = 0, target: Path = ASSETS) -> None:
    """Write the base of the newest checkpoint."""
    _start_log()
    from .export import export as write
    from .recipe import Recipe

    log.info("wrote %s, version %s", target, write(Recipe(seed=seed), folder, target))


@app.command()
def sheet(
    picture: Path,
    folder: Folder = TRAINING,
    seed: Seed = 0,
    noise: Annotated[int, typer.Option(help="Another number draws other prompts from other noise.")] = 0,
    shipped: Annotated[bool, typer.Option(help="Draw with the base in assets instead.")] = False,
) -> None:
    """Draw a contact sheet of one-object prompts with the newest checkpoint, 20 steps each."""
    _start_log()
    from .export import load_pipeline, load_shipped
    from .recipe import Recipe
    from .samples import prompts, sample_sheet

    pipe = load_shipped(ASSETS) if shipped else load_pipeline(Recipe(seed=seed), folder)[0]
    sample_sheet(pipe, prompts(24, noise), 4.0, noise).save(picture)


@app.command()
def codec(picture: Path, folder: Folder = TRAINING, seed: Seed = 0, first: int = 0) -> None:
    """Draw a contact sheet of scenes and of what the codec makes of them."""
    _start_log()
    from .export import make_codec
    from .recipe import Recipe
    from .samples import codec_sheet

    codec_sheet(make_codec(Recipe(seed=seed), folder), first).save(picture)


@app.command()
def world(picture: Path, seed: Seed = 0) -> None:
    """Draw a contact sheet of the world itself."""
    from .pictures import sheet as paste
    from .world import KINDS, scene

    paste([scene(seed + k, kind).draw() for kind in KINDS for k in range(16)], 8).save(picture)


def _train(name: str, folder: Path, seed: int, stop: int | None, threads: int, dtype: Precision, device: str) -> None:
    _start_log()
    from .loop import pick_dtype, train

    chosen = pick_dtype(dtype.value)
    log.info("%s computes in %s on %s", name, chosen, device)
    asked = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: asked.set())

    def ended(step: int) -> bool:
        return asked.is_set() or (stop is not None and step >= stop)

    for progress in train(_stage(name, folder, seed, chosen, device), folder, seed, ended, threads=threads):
        log.info("%s", progress)
    if asked.is_set():
        raise typer.Exit(130)


def _stage(name: str, folder: Path, seed: int, dtype: torch.dtype, device: str) -> Stage:
    from .export import make_base_stage, make_codec
    from .recipe import Recipe
    from .text import TextStage
    from .vae import PolishStage, VaeStage

    recipe = Recipe(seed=seed)
    if name == "base":
        return make_base_stage(recipe, folder, dtype, device)
    if name == "polish":
        return PolishStage(recipe, make_codec(recipe, folder), dtype, device)
    return VaeStage(recipe, dtype, device) if name == "vae" else TextStage(recipe, dtype, device)


def _start_log() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")


def main() -> None:
    """Run the command line; an error of the user's ends with its sentence."""
    try:
        app()
    except StudioError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
