"""Layer names: what each naming scheme calls the layers of the model that is loaded."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

_KOHYA_PREFIX = {"unet": ("lora_unet",), "text_encoder": ("lora_te", "lora_te1"), "text_encoder_2": ("lora_te2",)}


def plain(path: str) -> str:
    """A path without the `text_model` level, which transformers 5 dropped from one of SDXL's two encoders only."""
    return path.replace("text_model.", "")


def dotted(paths: Iterable[str]) -> dict[str, str]:
    """Scheme 'diffusers': 'unet.down_blocks...' or 'text_encoder.encoder...' -> the path in the loaded model."""
    return {plain(path): path for path in paths}


def underscored(paths: Iterable[str]) -> dict[str, str]:
    """Scheme 'kohya': 'lora_unet_down_blocks_...' -> path, with SDXL's original block names ('input_blocks') too."""
    table: dict[str, str] = {}
    known = list(paths)
    layers_per_block = _layers_per_block(known)
    attentive = {int(found[1]) for path in known if (found := re.match(r"unet\.up_blocks\.(\d+)\.attentions", path))}
    for path in known:
        component, _, inner = plain(path).partition(".")
        inners = [inner, original_name(inner, layers_per_block, attentive)] if component == "unet" else [inner]
        for prefix in _KOHYA_PREFIX[component]:
            for name in inners:
                table[f"{prefix}_{name.replace('.', '_')}"] = path
    return table


def flat(key: str) -> str:
    """A kohya layer key with the same level left out as in `plain`."""
    return key.replace("_text_model_", "_")


_RESNET = (
    ("conv1", "in_layers.2"),
    ("conv2", "out_layers.3"),
    ("time_emb_proj", "emb_layers.1"),
    ("conv_shortcut", "skip_connection"),
)
_FIXED = (
    ("time_embedding.linear_1", "time_embed.0"),
    ("time_embedding.linear_2", "time_embed.2"),
    ("add_embedding.linear_1", "label_emb.0.0"),
    ("add_embedding.linear_2", "label_emb.0.2"),
    ("conv_in", "input_blocks.0.0"),
    ("conv_out", "out.2"),
    ("mid_block.resnets.0", "middle_block.0"),
    ("mid_block.attentions.0", "middle_block.1"),
    ("mid_block.resnets.1", "middle_block.2"),
)


def original_name(inner: str, layers_per_block: int, attentive: set[int]) -> str:
    """The original latent-diffusion name of a U-Net layer: down_blocks.1.attentions.0 -> input_blocks.4.1.

    `attentive` are the up-blocks with attention, whose upsampler comes third in its cell and otherwise second.
    """
    name = _block_name(inner, layers_per_block, attentive)
    if ".resnets." in inner:
        for ours, theirs in _RESNET:
            name = re.sub(rf"\.{ours}$", f".{theirs}", name)
    return name


def _block_name(inner: str, layers_per_block: int, attentive: set[int]) -> str:
    for ours, theirs in _FIXED:
        if inner == ours or inner.startswith(ours + "."):
            return theirs + inner[len(ours) :]
    found = re.match(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)(.*)$", inner)
    if found is None:
        return inner
    direction, block, kind, number, rest = found[1], int(found[2]), found[3], int(found[4]), found[5]
    if direction == "down":
        first = 1 + block * (layers_per_block + 1)
        if kind == "downsamplers":
            return f"input_blocks.{first + layers_per_block}.0{rest.replace('.conv', '.op', 1)}"
        return f"input_blocks.{first + number}.{0 if kind == 'resnets' else 1}{rest}"
    first = block * (layers_per_block + 1)
    if kind == "upsamplers":
        return f"output_blocks.{first + layers_per_block}.{2 if block in attentive else 1}{rest}"
    return f"output_blocks.{first + number}.{0 if kind == 'resnets' else 1}{rest}"


def _layers_per_block(paths: list[str]) -> int:
    numbers: Iterator[int] = (
        int(found[1]) for path in paths if (found := re.match(r"unet\.down_blocks\.0\.resnets\.(\d+)\.", path))
    )
    return max(numbers, default=1) + 1
