"""The training loop of all Toybox stages: seeded by step, checkpointed atomically, continued bit for bit."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from safetensors import safe_open
from safetensors.torch import load, save
from torch import Tensor, nn

from studio.errors import BadFile

from .masters import Masters
from .recipe import StageRecipe
from .threads import Threads

log = logging.getLogger(__name__)


class Stage(Protocol):
    """What a stage tells the loop: its modules and its loss; all chance comes from the generator it is given."""

    name: str
    recipe: StageRecipe
    modules: list[nn.Module]

    def loss(self, step: int, rng: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Loss of the batch of `step`, and numbers to log."""
        ...


@dataclass(frozen=True)
class Progress:
    """One line of the log: `seconds` per step, `left` seconds to the end, and the stage's averaged numbers."""

    stage: str
    step: int
    steps: int
    seconds: float
    left: float
    numbers: dict[str, float]

    def __str__(self) -> str:
        values = " ".join(f"{k} {v:.4f}" for k, v in self.numbers.items())
        return (
            f"{self.stage} {self.step}/{self.steps} {values} | {self.seconds:.2f} s/step, {self.left / 60:.0f} min left"
        )


def pick_dtype(choice: str) -> torch.dtype:
    """Return bfloat16 or float32; `auto` times a small convolution both ways and takes the faster."""
    if choice in ("bf16", "fp32"):
        return torch.bfloat16 if choice == "bf16" else torch.float32
    times = {dtype: _time_convolution(dtype) for dtype in (torch.float32, torch.bfloat16)}
    return min(times, key=times.__getitem__)


def checkpoint_path(folder: Path, name: str) -> Path:
    """Where the newest checkpoint of a stage lies."""
    return folder / f"{name}.safetensors"


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read tensors and header of a checkpoint without leaving the file mapped."""
    with safe_open(str(path), framework="pt") as file:
        header = dict(file.metadata() or {})
    return load(path.read_bytes()), header


def write_checkpoint(path: Path, tensors: dict[str, Tensor], header: dict[str, str]) -> None:
    """Write a checkpoint so that a killed process leaves either the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_suffix(".part")
    with half.open("wb") as file:
        file.write(save({k: v.contiguous().cpu() for k, v in tensors.items()}, metadata=header))
        file.flush()
        os.fsync(file.fileno())
    half.replace(path)


def train(
    stage: Stage,
    folder: Path,
    seed: int,
    ended: Callable[[int], bool] = lambda step: False,
    every: float = 300.0,
    threads: int = 0,
) -> Iterator[Progress]:
    """Train `stage` to its last step, continuing from its checkpoint in `folder`; yields about every ten seconds.

    Stops early, with a checkpoint, before the first step for which `ended(step)` is true. A checkpoint is written
    every `every` seconds.
    """
    recipe = stage.recipe
    masters = Masters(stage.modules, recipe.clip, recipe.ema)
    path = checkpoint_path(folder, stage.name)
    if path.exists():
        state, _ = read_checkpoint(path)
        masters.load(state)
        log.info("%s continues at step %d", stage.name, masters.steps)
    meter, cores, saved = _Meter(stage.name, recipe.steps), Threads(threads), time.monotonic()
    while masters.steps < recipe.steps and not ended(masters.steps):
        cores.start()
        step = masters.steps
        loss, numbers = stage.loss(step, step_generator(seed, stage.name, step))
        loss.backward()  # type: ignore[no-untyped-call]
        norm = masters.step(recipe.rate(step))
        cores.stop()
        if time.monotonic() - saved > every:
            save_stage(path, masters, stage)
            saved = time.monotonic()
        report = meter.add(masters.steps, {"loss": float(loss.detach()), **numbers, "grad": norm})
        if report:
            yield report
    save_stage(path, masters, stage)


def save_stage(path: Path, masters: Masters, stage: Stage) -> None:
    """Write the checkpoint of a stage."""
    header = {
        "stage": stage.name,
        "recipe": json.dumps(stage.recipe.__dict__),
        "dtype": str(masters.parameters[0].dtype),
    }
    write_checkpoint(path, masters.state(), header)


def load_average(path: Path, modules: list[nn.Module]) -> int:
    """Fill `modules` with the moving average of a checkpoint; returns the steps it was trained.

    Raises BadFile if the stage has not been trained yet.
    """
    if not path.exists():
        raise BadFile(f"{path} is missing; run `python -m studio.toybox {path.stem}` first.")
    state, _ = read_checkpoint(path)
    masters = Masters(modules, 1.0, 0.0)
    masters.write(state["average"])
    return int(state["steps"])


def step_generator(seed: int, name: str, step: int) -> torch.Generator:
    """A generator that depends on seed, stage and step only, so that no random state needs saving."""
    stage = sum(ord(c) << (8 * k) for k, c in enumerate(name[:3]))
    return torch.Generator().manual_seed((seed * 1_000_003 + stage) * 10_000_019 + step)


def _time_convolution(dtype: torch.dtype) -> float:
    layer = nn.Conv2d(128, 128, 3, padding=1).to(dtype)
    x = torch.ones(16, 128, 16, 16, dtype=dtype)
    best = float("inf")
    for _ in range(4):
        start = time.perf_counter()
        layer(x).sum().backward()
        best = min(best, time.perf_counter() - start)
    return best


class _Meter:
    """Averages numbers between reports and estimates the time left."""

    def __init__(self, name: str, steps: int) -> None:
        self.name, self.steps = name, steps
        self.sums: dict[str, float] = {}
        self.count, self.start = 0, time.monotonic()

    def add(self, step: int, numbers: dict[str, float]) -> Progress | None:
        for key, value in numbers.items():
            self.sums[key] = self.sums.get(key, 0.0) + value
        self.count += 1
        passed = time.monotonic() - self.start
        if passed < 10 and step < self.steps:
            return None
        seconds = passed / self.count
        means = {k: v / self.count for k, v in self.sums.items()}
        report = Progress(self.name, step, self.steps, seconds, seconds * (self.steps - step), means)
        self.sums, self.count, self.start = {}, 0, time.monotonic()
        return report
