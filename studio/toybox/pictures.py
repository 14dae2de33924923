"""Drawn scenes as tensors, and tensors as pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .world import Scene


def to_tensor(pictures: Sequence[Image.Image]) -> Tensor:
    """Stack RGB pictures to (B, 3, H, W) float32 in -1..1."""
    array = np.stack([np.asarray(p, dtype=np.float32) for p in pictures])
    return torch.from_numpy(array).permute(0, 3, 1, 2).contiguous().div_(127.5).sub_(1.0)


def to_pictures(batch: Tensor) -> list[Image.Image]:
    """Turn (B, 3, H, W) in -1..1 into RGB pictures."""
    array = batch.detach().float().add(1).mul(127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(a) for a in array]


def scene_batch(scenes: Sequence[Scene]) -> Tensor:
    """Draw scenes into one (B, 3, 128, 128) batch."""
    return to_tensor([s.draw() for s in scenes])


def sheet(pictures: Sequence[Image.Image], columns: int) -> Image.Image:
    """Paste equal pictures into rows with a thin gap."""
    width, height = pictures[0].size
    rows = -(-len(pictures) // columns)
    page = Image.new("RGB", (columns * (width + 2), rows * (height + 2)), (255, 255, 255))
    for k, picture in enumerate(pictures):
        page.paste(picture, ((k % columns) * (width + 2), (k // columns) * (height + 2)))
    return page
