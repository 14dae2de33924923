"""What a denoiser call is conditioned on: a table of rows and the tensors indexed by it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from pipelines.start import Step


class Row(NamedTuple):
    """One sample of a denoiser call: a branch's way of seeing one picture, with or without its text."""

    branch: int
    half: Literal["without", "text"]
    image: int


@dataclass(frozen=True)
class Guidance:
    """Classifier-free guidance: scale, and the rescaling phi of arXiv 2305.08891 (0 = off)."""

    scale: float = 7.5
    rescale: float = 0.0


@dataclass(frozen=True)
class Embedded:
    """One encoded prompt: `embeds` (1, T, D) and, where the family has one, `pooled` (1, P); each half."""

    text: dict[str, Tensor]
    without: dict[str, Tensor] | None


@dataclass(frozen=True)
class Conditioning:
    """Everything the denoiser is told, one entry a row; unconditional rows come first, then branch by branch."""

    rows: tuple[Row, ...]
    embeds: Tensor  # (rows, T, D)
    guidance: Guidance
    extras: dict[str, Tensor] = field(default_factory=dict)  # added_cond_kwargs, each (rows, ...)
    timestep_cond: Tensor | None = None  # (rows, E): distilled guidance
    channels: Tensor | None = None  # (images, C', h, w): mask and masked picture of an inpainting U-Net
    arguments: dict[str, Any] = field(default_factory=dict)  # further denoiser arguments

    @cached_property
    def unconditional(self) -> int:
        """How many rows, from the first, carry no text."""
        return sum(row.half == "without" for row in self.rows)

    @cached_property
    def images(self) -> Tensor | None:
        """(rows,) the picture of each row; None when rows are the pictures in order, so nothing need be copied."""
        index = [row.image for row in self.rows]
        if index == list(range(max(index) + 1)):
            return None
        return torch.tensor(index, device=self.embeds.device)

    def at(self, step: Step) -> Conditioning:
        """This step's conditioning; constant unless a subclass says otherwise."""
        return self

    def with_channels(self, channels: Tensor) -> Conditioning:
        """The same rows with extra input channels (images, C', h, w)."""
        return replace(self, channels=channels)

    def select(self, index: Sequence[int]) -> Conditioning:
        """Only these rows, in this order."""
        where = torch.tensor(list(index), device=self.embeds.device)
        return replace(
            self,
            rows=tuple(self.rows[i] for i in index),
            embeds=self.embeds[where],
            extras={name: value[where] for name, value in self.extras.items()},
            timestep_cond=None if self.timestep_cond is None else self.timestep_cond[where],
        )


def assemble(
    branches: Sequence[Embedded],
    images: int,
    guidance: Guidance,
    size_extras: dict[str, Tensor],
    timestep_cond: Tensor | None = None,
) -> Conditioning:
    """Lay encoded branch prompts out as rows: every branch's unconditional half first, then every branch's text.

    `size_extras` (1, ...) are the same for all rows. Unconditional rows are left out when `without` is None.
    """
    rows: list[Row] = []
    parts: list[dict[str, Tensor]] = []
    halves: tuple[Literal["without", "text"], ...] = ("without", "text")
    for half in halves:
        for number, branch in enumerate(branches):
            tensors = branch.text if half == "text" else branch.without
            if tensors is None:
                continue
            rows += [Row(number, half, image) for image in range(images)]
            parts += [tensors] * images
    embeds = torch.cat([part["embeds"] for part in parts])
    extras: dict[str, Tensor] = {}
    if "pooled" in parts[0]:
        extras["text_embeds"] = torch.cat([part["pooled"] for part in parts])
    for name, value in size_extras.items():
        extras[name] = value.to(embeds.device).repeat(len(rows), 1)
    if timestep_cond is not None:
        timestep_cond = timestep_cond.to(embeds).repeat(len(rows), 1)
    return Conditioning(tuple(rows), embeds, guidance, extras, timestep_cond)
