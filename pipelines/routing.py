"""Routing: which adapter acts on which row of a call, and where in the picture."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

Rows = slice | Tensor | None  # None: every row, however many


@dataclass
class Group:
    """Rows that use the same adapters; they run as one slice."""

    rows: Rows
    columns: tuple[int, ...]  # the adapters that act on these rows
    weights: Tensor  # (rows of this group, K), or (1, K) when they are all alike
    masks: Tensor | None = None  # (rows of this group, K, H, W)
    size: tuple[int, int] | None = None  # the latents' height and width
    _cache: dict[object, Tensor | None] = field(default_factory=dict)

    def coefficient(
        self, columns: tuple[int, ...], ranks: tuple[int, ...], grid: int | None, like: Tensor, channels_first: bool
    ) -> Tensor | None:
        """What to multiply stacked hidden features `like` by, so that adapter k's `ranks[k]` features carry its
        weight and mask; None where that is one everywhere.

        Returns (g, ..., sum of ranks) broadcastable to `like`, or (g, sum of ranks, ...) when `channels_first`.
        """
        key = (columns, ranks, grid, like.dim(), channels_first, like.dtype)
        if key not in self._cache:
            self._cache[key] = self._coefficient(columns, ranks, grid, like, channels_first)
        return self._cache[key]

    def _coefficient(
        self, columns: tuple[int, ...], ranks: tuple[int, ...], grid: int | None, like: Tensor, channels_first: bool
    ) -> Tensor | None:
        chosen = list(columns)
        weights = self.weights[:, chosen]  # (g, k)
        if self.masks is None and bool((weights == 1).all()):
            return None
        repeats = torch.tensor(ranks, device=weights.device)
        if self.masks is not None and grid is not None:
            assert self.size is not None
            # Area averages, so that a mask keeps its total weight on every grid.
            masks = F.adaptive_avg_pool2d(self.masks[:, chosen], grid_size(self.size, grid))
            full = (weights[..., None, None] * masks).repeat_interleave(repeats, dim=1)  # (g, R, h, w)
            return (full if channels_first else full.flatten(2).transpose(1, 2)).to(like)
        if self.masks is not None:
            weights = weights * self.masks[:, chosen].mean(dim=(2, 3))
        flat = weights.repeat_interleave(repeats, dim=1)  # (g, R)
        ones = [1] * (like.dim() - 2)
        shape = (flat.shape[0], flat.shape[1], *ones) if channels_first else (flat.shape[0], *ones, flat.shape[1])
        return flat.reshape(shape).to(like)


class Routing:
    """Composers write it, adapted layers read it.

    `y = base(x) + sum_k weights[:, k] * masks[:, k] * delta_k(x)`. Switching adapters is an assignment here, never a
    walk over modules.
    """

    def __init__(self, adapters: int) -> None:
        self.adapters = adapters
        self.groups: tuple[Group, ...] = ()
        self._weights = torch.zeros(1, adapters)
        self._masks: Tensor | None = None
        self._images: tuple[int, ...] = ()
        self._size: tuple[int, int] | None = None

    @property
    def weights(self) -> Tensor:
        """(rows, K), or (1, K) for every row alike."""
        return self._weights

    def set(
        self,
        weights: Tensor | Sequence[float],
        masks: Tensor | None = None,
        images: Sequence[int] = (),
        size: tuple[int, int] | None = None,
    ) -> None:
        """Say who acts where from now on.

        Args:
            weights: (rows, K), or (K,) for every row alike.
            masks: (images, K, H, W) in picture coordinates, any resolution.
            images: the picture of each row, needed with masks.
            size: height and width of the latents, needed with masks.
        """
        table = torch.as_tensor(weights, dtype=torch.float32)
        self._weights = table[None] if table.dim() == 1 else table
        assert self._weights.shape[1] == self.adapters, "one column of weights an adapter"
        if masks is not None:
            assert size is not None and len(images) >= 1 and masks.shape[1] == self.adapters, "masks need images, size"
        self._masks, self._images, self._size = masks, tuple(images), size
        self.groups = self._grouped(range(max(len(self._images), self._weights.shape[0])))

    def clear(self) -> None:
        """No adapter acts."""
        self.set([0.0] * self.adapters)

    @contextmanager
    def narrow(self, index: Sequence[int]) -> Iterator[None]:
        """Inside the block the network sees only these rows of the call, in this order."""
        outer = self.groups
        self.groups = self._grouped(index)
        try:
            yield
        finally:
            self.groups = outer

    def _grouped(self, index: Sequence[int]) -> tuple[Group, ...]:
        """Rows with the same set of acting adapters form one group."""
        alike = self._weights.shape[0] == 1
        if alike and self._masks is None:
            columns = tuple(self._weights[0].nonzero().flatten().tolist())
            return (Group(None, columns, self._weights),) if columns else ()
        table = self._weights.expand(max(self._weights.shape[0], max(index) + 1), -1)[list(index)]
        sets: dict[tuple[int, ...], list[int]] = {}
        for position, row in enumerate(table):
            sets.setdefault(tuple(row.nonzero().flatten().tolist()), []).append(position)
        groups = []
        for columns, positions in sets.items():
            if not columns:
                continue
            rows: Rows = None if len(positions) == len(table) else _as_slice(positions)
            weights = table[positions]
            masks = None
            if self._masks is not None:
                masks = self._masks[[self._images[index[p]] for p in positions]]
            elif bool((weights == weights[:1]).all()):
                weights = weights[:1]
            groups.append(Group(rows, columns, weights, masks, self._size))
        return tuple(groups)


def _as_slice(positions: list[int]) -> slice | Tensor:
    """A view where the rows are evenly spaced, else an index."""
    step = positions[1] - positions[0] if len(positions) > 1 else 1
    if positions == list(range(positions[0], positions[0] + step * len(positions), step)):
        return slice(positions[0], positions[-1] + 1, step)
    return torch.tensor(positions)


def grid_size(size: tuple[int, int], level: int) -> tuple[int, int]:
    """Height and width after `level` strided convolutions, each of which rounds halves up."""
    height, width = size
    for _ in range(level):
        height, width = (height + 1) // 2, (width + 1) // 2
    return height, width


_TEXT_FED = re.compile(r"attn2\.to_[kv]$|add_[kv]_proj$")
_NO_POSITIONS = re.compile(r"time_emb|time_proj|add_embedding|class_embedding|emb_layers")


def grid_level(path: str, levels: int) -> int | None:
    """How many times the latent grid is halved where this U-Net layer writes; None for layers without positions.

    Found from the layer's path, never from a token count, which other sizes share.
    """
    component, _, inner = path.partition(".")
    if component != "unet" or _TEXT_FED.search(inner) or _NO_POSITIONS.search(inner):
        return None
    block = re.match(r"(down|up)_blocks\.(\d+)\.(\w+)", inner)
    if block is None:
        return levels - 1 if inner.startswith("mid_block") else 0
    direction, number, kind = block.group(1), int(block.group(2)), block.group(3)
    level = number if direction == "down" else levels - 1 - number
    if kind == "downsamplers":
        return level + 1
    if kind == "upsamplers":
        return level - 1
    return level
