"""What our loop and adapters cost beside stock diffusers with peft, on Toybox and on Stable Diffusion 1.5's sizes.

Bars:
    fused operations, toybox    aten operations a step, ours with 3 fused adapters / stock without adapters
    fused operations, sd15      the same on SD 1.5's architecture (narrow: the count does not depend on the width)
    unfused time, toybox        seconds of a whole render, ours with 3 unfused adapters / stock with them through peft
    unfused time, sd15          seconds of one denoiser call at full width, 64x64 latents (16x16 when quick)

Times are of pairs (A B A B in one process); the sum of weights is random, for speed does not depend on it.
"""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from peft import LoraConfig
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from bench.report import Bar, arguments, finish, ratio
from pipelines import samplers
from pipelines.adapters import Adapter, adapted
from pipelines.composer import Prompts
from pipelines.conditioning import Guidance
from pipelines.deltas import LowRank
from pipelines.methods.merge import Merge
from pipelines.sd import SDPipeline, ToyboxPipeline
from pipelines.start import Task
from studio.toybox.base import make_scheduler, make_unet
from studio.toybox.recipe import Recipe
from studio.toybox.text import make_text_encoder
from studio.toybox.tokens import make_tokenizer
from studio.toybox.vae import make_vae

TOYBOX = Path(__file__).parent.parent / "assets" / "toybox" / "base"
TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2"]
WEIGHTS = (1.0, 0.8, 0.6)
RANK = 16
SAMPLER = "DPM++ 2M"


class Count(TorchDispatchMode):
    """Counts the operations that reach a kernel or a view."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.total += 1
        return func(*args, **(kwargs or {}))


def toybox() -> SDPipeline:
    """The embedded base, or its architecture with random weights where it has not been made yet."""
    if TOYBOX.is_dir():
        pipe: SDPipeline = ToyboxPipeline.from_pretrained(TOYBOX, safety_checker=None, dtype=torch.float32)
        return pipe
    return around(make_unet(Recipe()), make_scheduler(), ToyboxPipeline)


def around(unet: UNet2DConditionModel, scheduler: Any, cls: type[SDPipeline] = SDPipeline) -> SDPipeline:
    """A pipeline with Toybox's other parts, which these measurements do not depend on."""
    recipe, tokenizer = Recipe(), make_tokenizer()
    pipe: SDPipeline = cls(
        vae=make_vae(recipe).eval(), text_encoder=make_text_encoder(recipe, tokenizer).eval(), tokenizer=tokenizer,
        unet=unet.eval(), scheduler=scheduler, safety_checker=None, feature_extractor=None,
        requires_safety_checker=False,
    )  # fmt: skip
    return pipe


def sd15(widths: tuple[int, ...], text_width: int, channels: int) -> UNet2DConditionModel:
    """SD 1.5's U-Net with these sizes; filled at once, for the usual random start takes a minute at full size."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(
            block_out_channels=widths, cross_attention_dim=text_width, attention_head_dim=8, in_channels=channels,
            out_channels=channels, sample_size=16,
        )  # fmt: skip
    unet.to_empty(device="cpu")
    with torch.no_grad():
        for name, parameter in unet.named_parameters():
            if "norm" in name:
                parameter.fill_(float(name.endswith("weight")))
            else:
                parameter.uniform_(-0.02, 0.02)
    return unet


def with_peft(pipe: SDPipeline) -> tuple[Any, list[Adapter]]:
    """A stock pipeline with three adapters active through peft, and the same adapters for ours.

    Its U-Net has the same weights in the same memory, so that both sides have the same caches to fill.
    """
    shared = {id(parameter): parameter for parameter in pipe.unet.parameters()}
    unet = copy.deepcopy(pipe.unet, shared)
    names = [f"adapter{k}" for k in range(len(WEIGHTS))]
    for name in names:
        config = LoraConfig(r=RANK, lora_alpha=RANK, target_modules=TARGETS, init_lora_weights=False)
        unet.add_adapter(config, name)
    unet.set_adapters(names, list(WEIGHTS))
    unet.requires_grad_(False)
    deltas: dict[str, dict[str, nn.Module]] = {name: {} for name in names}
    for path, module in unet.named_modules():
        for name in names if hasattr(module, "lora_A") else ():
            down, up = module.lora_A[name].weight, module.lora_B[name].weight
            deltas[name][f"unet.{path}"] = LowRank(down.detach().clone(), up.detach().clone())
    adapters = [Adapter(name, deltas[name], weight) for name, weight in zip(names, WEIGHTS, strict=True)]
    return stock(pipe, unet), adapters


def stock(pipe: SDPipeline, unet: Any) -> Any:
    """diffusers' own pipeline of the same parts."""
    plain = StableDiffusionPipeline(**{**pipe.components, "unet": unet}, requires_safety_checker=False)
    plain.scheduler = samplers.scheduler(SAMPLER, "Automatic", pipe.scheduler.config)
    plain.set_progress_bar_config(disable=True)
    return plain


class Beside(Merge):
    """Merge as a quantised or offloaded base has it: never fused."""

    def installed(self) -> Any:
        """Adapters beside the weights."""
        stack = ExitStack()
        stack.enter_context(adapted(self.pipe, self.adapters)).everywhere()
        return stack


@torch.no_grad()
def ours(pipe: SDPipeline, adapters: Sequence[Adapter], steps: int, seed: int, method: type[Merge]) -> Tensor:
    """Final latents of our loop for one guided picture."""
    composer = method(pipe, adapters, method.Options())
    latents: Tensor | None = None
    size = pipe.unet.config.sample_size * pipe.vae_scale_factor
    prompts = Prompts("a red cat", "a red cat", (), "", 1, size, size, Guidance(4.0))
    with pipe.sampling(samplers.scheduler(SAMPLER, "Automatic", pipe.scheduler.config)), composer.installed():
        cond = composer.condition(prompts)
        for step in pipe.stream(composer, cond, pipe.begin(Task(steps, size, size, (seed,)))):
            latents = step.latents
    assert latents is not None
    return latents


def theirs(plain: Any, steps: int, seed: int) -> Tensor:
    """The same of a stock pipeline."""
    generator = torch.Generator().manual_seed(seed)
    settings = {"guidance_scale": 4.0, "generator": generator, "output_type": "latent"}
    latents: Tensor = plain("a red cat", num_inference_steps=steps, **settings).images
    return latents


def operations(render: Callable[[int], object]) -> float:
    """aten operations of one step: the difference between a longer and a shorter run, so that set-up drops out."""
    counts = []
    for steps in (2, 4):
        with Count() as count:
            render(steps)
        counts.append(count.total)
    return (counts[1] - counts[0]) / 2


def counted(name: str, pipe: SDPipeline, seed: int) -> tuple[dict[str, Any], Bar]:
    """Operations a step with three fused adapters, and of stock diffusers without any."""
    _, adapters = with_peft(pipe)
    plain = stock(pipe, pipe.unet)
    mine = operations(lambda steps: ours(pipe, adapters, steps, seed, Merge))
    other = operations(lambda steps: theirs(plain, steps, seed))
    row = {"base": name, "what": "aten operations a step, fused", "ours": mine, "stock": other, "pairs": 1}
    return row, Bar(f"fused operations, {name}", mine / other, mine / other, mine / other, 1.0)


def timed(
    name: str, mine: Callable[[], Tensor], other: Callable[[], Tensor], pairs: int, seed: int
) -> tuple[dict[str, Any], Bar]:
    """Paired seconds of two ways to the same result, which is checked first."""
    difference = float((mine() - other()).abs().max() / other().std())
    assert difference < 1e-3, f"both sides must compute the same; they differ by {difference:g}"
    seconds: tuple[list[float], list[float]] = ([], [])
    for number in range(pairs):
        # Which side goes first alternates: the second finds warmer caches.
        for side in (0, 1) if number % 2 == 0 else (1, 0):
            begun = time.perf_counter()
            (mine, other)[side]()
            seconds[side].append(time.perf_counter() - begun)
        print(f"\r{name}: {number + 1}/{pairs} pairs", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    value, low, high = ratio(*seconds, seed)
    middle = [sorted(times)[pairs // 2] for times in seconds]
    row = {"base": name, "what": "seconds, 3 unfused", "ours": middle[0], "stock": middle[1], "pairs": pairs}
    return row, Bar(f"unfused time, {name}", value, low, high, 1.05)


def toybox_times(quick: bool, seed: int) -> tuple[dict[str, Any], Bar]:
    """Whole renders, adapters put in and taken out included on our side."""
    pipe, steps = toybox(), 5 if quick else 20
    plain, adapters = with_peft(pipe)
    return timed(
        "toybox",
        lambda: ours(pipe, adapters, steps, seed, Beside),
        lambda: theirs(plain, steps, seed),
        11 if quick else 41,
        seed,
    )


@torch.no_grad()
def sd15_times(quick: bool, seed: int) -> tuple[dict[str, Any], Bar]:
    """Single calls of the full-size denoiser, of one row."""
    pipe = around(sd15((320, 640, 1280, 1280), 768, 4), DDIMScheduler())
    plain, adapters = with_peft(pipe)
    generator = torch.Generator().manual_seed(seed)
    size = 16 if quick else 64
    x = torch.randn(1, 4, size, size, generator=generator)
    text = torch.randn(1, 77, 768, generator=generator)
    with adapted(pipe, adapters) as routes:
        routes.everywhere()
        return timed(
            "sd15",
            lambda: pipe.unet(x, 500, text, return_dict=False)[0],
            lambda: plain.unet(x, 500, text, return_dict=False)[0],
            9 if quick else 7,
            seed,
        )


def main(given: Sequence[str] | None = None) -> int:
    """Run everything; the exit status is 1 when a bar is missed."""
    parser = arguments(__doc__)
    parser.add_argument("--only", choices=("operations", "toybox", "sd15"), help="one part")
    parser.add_argument("--threads", type=int, default=1, help="one, so that a busy machine does not blur the pairs")
    options = parser.parse_args(given)
    torch.set_num_threads(options.threads)
    parts: list[tuple[dict[str, Any], Bar]] = []
    if options.only in (None, "operations"):
        parts.append(counted("toybox", toybox(), options.seed))
        parts.append(counted("sd15", around(sd15((32, 64, 64, 64), 128, 8), make_scheduler()), options.seed))
    if options.only in (None, "toybox"):
        parts.append(toybox_times(options.quick, options.seed))
    if options.only in (None, "sd15"):
        parts.append(sd15_times(options.quick, options.seed))
    return finish(
        options, [row for row, _ in parts], [bar for _, bar in parts], f"cpu, {torch.get_num_threads()} threads"
    )


if __name__ == "__main__":
    sys.exit(main())
