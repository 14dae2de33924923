"""Adapter files made in tests: real ones through safetensors, and broken ones byte by byte."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

Shapes = dict[str, tuple[int, ...]]


def shapes_of(pipe: Any) -> Shapes:
    """Layer path -> weight shape, as `read` wants it."""
    return {path: tuple(layer.weight.shape) for path, layer in pipe.layers().items()}


def factors(shape: tuple[int, ...], rank: int, seed: int) -> tuple[Tensor, Tensor]:
    """Random down and up factors for a layer's weight."""
    generator = torch.Generator().manual_seed(seed)
    down = torch.randn((rank, *shape[1:]), generator=generator)
    up = torch.randn((shape[0], rank, *(1,) * (len(shape) - 2)), generator=generator)
    return down, up


def kohya(path: Path, layers: dict[str, tuple[int, ...]], alpha: float | None = 2.0, **metadata: str) -> Path:
    """A file in kohya's naming: key without ending -> weight shape; rank 4."""
    tensors: dict[str, Tensor] = {}
    for seed, (name, shape) in enumerate(layers.items()):
        down, up = factors(shape, 4, seed)
        tensors |= {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up}
        if alpha is not None:
            tensors[f"{name}.alpha"] = torch.tensor(alpha)
    save_file(tensors, path, metadata)
    return path


def raw(path: Path, header: Any, body: bytes = b"") -> Path:
    """A file with any header at all; text is written as it is."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)
    return path


def entry(shape: list[Any], start: int, end: int, dtype: str = "F32") -> dict[str, Any]:
    """One tensor of a header."""
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
