"""The picture codec of the Toybox: a small AutoencoderKL, its training stage, and latent statistics folded into it."""

from __future__ import annotations

import logging

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from .pictures import scene_batch
from .recipe import Recipe, StageRecipe
from .world import scene

log = logging.getLogger(__name__)

_KINDS = ("one", "one", "two", "two", "three", "portrait")  # one round of the codec's diet
_POSTERIOR_LOG_VARIANCE = -6.0  # of unit-variance latents, in the saved codec
_DOUBT = 0.2  # noise on unit-variance latents while the decoder is polished


def make_vae(recipe: Recipe) -> AutoencoderKL:
    """Return a codec with random weights: pictures (B,3,128,128) to latents (B,8,16,16)."""
    torch.manual_seed(recipe.seed)
    widths = recipe.vae_widths
    vae = AutoencoderKL(
        block_out_channels=widths,
        down_block_types=("DownEncoderBlock2D",) * len(widths),
        up_block_types=("UpDecoderBlock2D",) * len(widths),
        layers_per_block=1,
        latent_channels=recipe.latent_channels,
        norm_num_groups=8,
        sample_size=128,
        scaling_factor=1.0,
        mid_block_add_attention=False,  # a codec without attention stays local: a change here changes latents here only
    )
    # Little noise on the latents at first: with the usual start the codec needs a thousand steps to find colour.
    with torch.no_grad():
        vae.quant_conv.bias[recipe.latent_channels :] -= 4.0
    return vae


class VaeStage:
    """Trains the codec: absolute error, absolute error of edges, and a small price on latent information."""

    name = "vae"

    def __init__(self, recipe: Recipe, dtype: torch.dtype, device: str = "cpu") -> None:
        self.recipe: StageRecipe = recipe.vae
        self.whole = recipe
        self.vae = make_vae(recipe).to(device=device, dtype=dtype)
        self.modules: list[nn.Module] = [self.vae]

    def loss(self, step: int, rng: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Loss of fresh scenes; logs the mean absolute error (pictures in -1..1) and nats per latent element."""
        x = _scenes(self.whole.seed, step, self.recipe.batch).to(self.vae.device, self.vae.dtype)
        posterior = self.vae.encode(x).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=rng).to(x)
        loss, absolute = _distance(self.vae.decode(posterior.mean + posterior.std * noise).sample, x, self.whole)
        mean, logvar = posterior.mean.float(), posterior.logvar.float()
        nats = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
        price = self.whole.kl_weight * min(1.0, step / (0.6 * self.recipe.steps))
        return loss + price * nats, {"mae": absolute, "nats": float(nats.detach())}


class PolishStage:
    """Trains the decoder on, with latents as they are: pictures get sharper and nothing learned on latents is lost."""

    name = "polish"

    def __init__(self, recipe: Recipe, vae: AutoencoderKL, dtype: torch.dtype, device: str = "cpu") -> None:
        self.recipe: StageRecipe = recipe.polish
        self.whole = recipe
        self.vae = vae.to(device=device, dtype=dtype)
        self.modules: list[nn.Module] = decoder_of(self.vae)
        for module in self.modules:
            module.requires_grad_(True)

    def loss(self, step: int, rng: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Loss of fresh scenes decoded from slightly noisy latents, for the denoiser's latents are never exact."""
        x = _scenes(self.whole.seed + 1, step, self.recipe.batch).to(self.vae.device, self.vae.dtype)
        with torch.no_grad():
            latents = self.vae.encode(x).latent_dist.mean
        noise = torch.randn(latents.shape, generator=rng).to(x)
        loss, absolute = _distance(self.vae.decode(latents + _DOUBT * noise).sample, x, self.whole)
        return loss, {"mae": absolute}


def decoder_of(vae: AutoencoderKL) -> list[nn.Module]:
    """The modules that turn latents into pictures."""
    return [vae.post_quant_conv, vae.decoder]


def _scenes(seed: int, step: int, batch: int) -> Tensor:
    first = step * batch
    return scene_batch([scene(_vae_seed(seed, k), _KINDS[k % len(_KINDS)]) for k in range(first, first + batch)])


def _distance(found: Tensor, drawn: Tensor, recipe: Recipe) -> tuple[Tensor, float]:
    error = (found - drawn).float()
    absolute = error.abs().mean()
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    return absolute + recipe.edge_weight * edges, float(absolute.detach())


def fold_statistics(vae: AutoencoderKL, seed: int, count: int) -> None:
    """Fold per-channel latent statistics into the 1x1 convolutions, so that latents have mean 0 and variance 1.

    The denoiser is trained on posterior means; the saved posterior is narrowed to match, so that encoding a picture
    gives latents it knows.
    """
    means = []
    with torch.no_grad():
        for start in range(0, count, 32):
            batch = scene_batch([scene(_vae_seed(seed, -1 - k), _KINDS[k % 6]) for k in range(start, start + 32)])
            means.append(vae.encode(batch.to(vae.device, vae.dtype)).latent_dist.mean.float())
        z = torch.cat(means)
        centre, spread = z.mean((0, 2, 3)), z.std((0, 2, 3))
        channels = len(centre)
        quant, post = vae.quant_conv, vae.post_quant_conv
        quant.weight[:channels] = quant.weight[:channels] / spread.view(-1, 1, 1, 1)
        quant.bias[:channels] = (quant.bias[:channels] - centre) / spread
        quant.weight[channels:] = 0.0
        quant.bias[channels:] = _POSTERIOR_LOG_VARIANCE
        post.bias += post.weight[:, :, 0, 0] @ centre
        post.weight *= spread.view(1, -1, 1, 1)
    log.info("latent spread before folding: %s", ", ".join(f"{v:.2f}" for v in spread.tolist()))


def _vae_seed(seed: int, index: int) -> int:
    return seed * 1_000_000_007 + 500_000_000 + index  # far from the seeds the base is trained on
