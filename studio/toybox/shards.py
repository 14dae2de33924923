"""Encoded scenes on disk: a shard holds the latents of a run of seeds, made once when training first reaches it."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from .loop import read_checkpoint, write_checkpoint
from .pictures import scene_batch
from .world import scene

log = logging.getLogger(__name__)


class Shards:
    """Latents of numbered scenes of each kind, (8, 16, 16) float16 each; what a number means never changes."""

    def __init__(self, vae: AutoencoderKL, folder: Path, size: int, seed: int) -> None:
        self.vae, self.size, self.seed = vae, size, seed
        self.folder = folder / f"latents-{_fingerprint(vae)}"
        self._loaded: dict[tuple[str, int], Tensor] = {}

    def scene_seed(self, index: int) -> int:
        """The seed of scene number `index`."""
        return self.seed * 1_000_000_007 + index

    def latents(self, kind: str, index: int) -> Tensor:
        """Latents of one scene; encodes its whole shard if need be."""
        return self._shard(kind, index // self.size)[index % self.size]

    def _shard(self, kind: str, number: int) -> Tensor:
        key = (kind, number)
        if key not in self._loaded:
            path = self.folder / f"{kind}-{number:04d}.safetensors"
            if not path.exists():
                self._encode(kind, number, path)
            self._loaded[key] = read_checkpoint(path)[0]["latents"]
        return self._loaded[key]

    def _encode(self, kind: str, number: int, path: Path) -> None:
        first, parts = number * self.size, []
        with torch.no_grad():
            for start in range(first, first + self.size, 64):
                run = range(start, min(start + 64, first + self.size))
                batch = scene_batch([scene(self.scene_seed(k), kind) for k in run]).to(self.vae.device, self.vae.dtype)
                parts.append(self.vae.encode(batch).latent_dist.mean.half().cpu())
        write_checkpoint(path, {"latents": torch.cat(parts)}, {"kind": kind, "first": str(first)})
        log.info("encoded scenes %d to %d (%s)", first, first + self.size - 1, kind)


def _fingerprint(vae: AutoencoderKL) -> str:
    digest = hashlib.sha256()
    for name, weight in sorted(vae.encoder.state_dict().items()):
        digest.update(name.encode() + weight.float().cpu().numpy().tobytes())
    digest.update(vae.quant_conv.weight.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()[:10]
