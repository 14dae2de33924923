"""Every number of the Toybox training in one place; a recipe and a seed decide the trained weights."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class StageRecipe:
    """How long and how fast one stage learns.

    `lr` rises over `warmup` steps, holds, and falls to a twentieth over the last `decay` of the steps.
    """

    steps: int
    batch: int
    lr: float
    warmup: int = 100
    decay: float = 0.3  # share of the steps over which the rate falls
    ema: float = 0.999
    clip: float = 1.0

    def rate(self, step: int) -> float:
        """Learning rate of `step`, a function of the step alone so that a resumed run continues exactly."""
        tail = max(1, round(self.steps * self.decay))
        left = min(1.0, (self.steps - step) / tail)
        return self.lr * min(1.0, (step + 1) / self.warmup) * (0.05 + 0.95 * left)


@dataclass(frozen=True)
class Recipe:
    """Sizes of the four models and the training stages."""

    seed: int = 0
    vae_widths: tuple[int, ...] = (24, 48, 96, 96)
    latent_channels: int = 8
    kl_weight: float = 0.003  # full from 60 % of the steps on; leaves about 1.3 nats per latent element
    edge_weight: float = 0.5  # keeps outlines and fingers sharp
    statistics: int = 1024  # scenes over which latents are brought to mean 0 and variance 1
    text_width: int = 128
    text_layers: int = 3
    text_heads: int = 2
    words: int = 2048  # at most; the tokenizer needs 512 for bytes
    unet_widths: tuple[int, ...] = (128, 192, 256)
    heads: int = 2
    vae: StageRecipe = field(default_factory=lambda: StageRecipe(steps=2300, batch=4, lr=2.5e-4, decay=0.4, ema=0.995))
    text: StageRecipe = field(default_factory=lambda: StageRecipe(steps=800, batch=64, lr=1e-3, ema=0.99))
    base: StageRecipe = field(
        default_factory=lambda: StageRecipe(steps=2600, batch=32, lr=3e-4, warmup=200, decay=0.3, ema=0.998)
    )
    polish: StageRecipe = field(default_factory=lambda: StageRecipe(steps=2000, batch=4, lr=2e-4, decay=0.8, ema=0.995))
    no_caption: float = 0.1  # share of pictures trained without words, for guidance
    gamma: float = 5.0  # min-SNR
    shard: int = 512  # scenes encoded at a time
    scenes: int = 65536  # scenes of each kind that are ever encoded


def tiny() -> Recipe:
    """A recipe of the same shape that trains in a second, for tests."""
    return Recipe(
        vae_widths=(8, 8, 8, 8),
        statistics=32,
        text_width=16,
        text_layers=1,
        unet_widths=(32, 32, 32),
        vae=StageRecipe(steps=6, batch=2, lr=1e-3, warmup=2, ema=0.9),
        text=StageRecipe(steps=6, batch=4, lr=1e-3, warmup=2, ema=0.9),
        base=StageRecipe(steps=6, batch=4, lr=1e-3, warmup=2, ema=0.9),
        polish=StageRecipe(steps=6, batch=2, lr=1e-3, warmup=2, ema=0.9),
        shard=8,
        scenes=16,
    )
