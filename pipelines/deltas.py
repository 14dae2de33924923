"""The ways to write a weight change.

A delta is a module that is called with a layer's input and returns what to *add* to the layer's output, at full
strength and without bias; weight, mask and gate stay outside (`pipelines.adapters`).
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipelines.errors import AdapterMismatch


@runtime_checkable
class Delta(Protocol):
    """What every delta can do; `y0` is the layer's output without bias, for kinds that scale it."""

    def __call__(self, x: Tensor, y0: Tensor, base: nn.Module) -> Tensor:
        """What to add to the layer's output for this input."""

    def dense(self, base: nn.Module) -> Tensor:
        """The change of the weight itself, float32, in the shape of `base.weight`."""


Deltas = dict[str, nn.Module]


class LowRank(nn.Module):
    """`dW = scale * up @ down` for a linear or convolution layer (LoRA, arXiv 2106.09685 eq. 3; LoCon for 3x3).

    Shapes: down (r, in) or (r, in, kh, kw); up (out, r) or (out, r, 1, 1).
    """

    def __init__(self, down: Tensor, up: Tensor, scale: float = 1.0) -> None:
        super().__init__()
        self.down, self.up = nn.Parameter(down, requires_grad=False), nn.Parameter(up, requires_grad=False)
        self.scale = scale

    @property
    def rank(self) -> int:
        """Number of rank-one terms."""
        return int(self.down.shape[0])

    def forward(self, x: Tensor, y0: Tensor, base: nn.Module) -> Tensor:
        """`scale * up(down(x))`."""
        hidden = contract(x, self.down, base)
        return expand(hidden * self.scale if self.scale != 1.0 else hidden, self.up, base)

    def dense(self, base: nn.Module) -> Tensor:
        """`scale * up @ down` in the base weight's shape."""
        product = self.up.float().flatten(1) @ self.down.float().flatten(1)
        return (product * self.scale).reshape(tuple(base.weight.shape))  # type: ignore[arg-type]


def contract(x: Tensor, down: Tensor, base: nn.Module) -> Tensor:
    """Apply `down` factors as the layer sees its input: (..., in) -> (..., r) or (B, in, H, W) -> (B, r, h, w)."""
    if isinstance(base, nn.Conv2d):
        return F.conv2d(x, down, None, base.stride, base.padding, base.dilation)
    return F.linear(x, down)


def expand(hidden: Tensor, up: Tensor, base: nn.Module) -> Tensor:
    """Apply stacked `up` factors: (..., r) -> (..., out), or (B, r, h, w) -> (B, out, h, w)."""
    if isinstance(base, nn.Conv2d):
        return F.conv2d(hidden, up)
    return F.linear(hidden, up)


def fitted(down: Tensor, up: Tensor, weight_shape: tuple[int, ...], name: str) -> tuple[Tensor, Tensor]:
    """Bring two factors to the layout of a layer's weight; 1x1 convolutions and linears are told apart by some tools
    and not by others, so trailing 1s are added or dropped.

    Raises:
        AdapterMismatch: the shapes do not multiply to the layer's.
    """
    if min(down.dim(), up.dim()) < 2 or down.shape[0] < 1:
        raise AdapterMismatch(f"{name}: {tuple(down.shape)} and {tuple(up.shape)} are no factors of a weight.")
    convolution = len(weight_shape) == 4
    expected_down = (down.shape[0], *weight_shape[1:])
    expected_up = (weight_shape[0], down.shape[0]) + ((1, 1) if convolution else ())
    for factor, expected in ((down, expected_down), (up, expected_up)):
        if factor.numel() != torch.Size(expected).numel() or factor.shape[:2] != expected[:2]:
            raise AdapterMismatch(
                f"{name}: factors {tuple(down.shape)} and {tuple(up.shape)} do not fit a layer of shape {weight_shape}."
            )
    return down.reshape(expected_down), up.reshape(expected_up)
