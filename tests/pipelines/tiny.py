"""Tiny random pipelines of the real classes, and random adapters for them; built from config, offline."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, EulerDiscreteScheduler, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from pipelines.adapters import Adapter
from pipelines.deltas import LowRank
from pipelines.sd import SDPipeline
from pipelines.sdxl import SDXLPipeline

TOKENS = 16


def tokenizer() -> CLIPTokenizer:
    """CLIP's tokenizer over single bytes, so that any text has tokens."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = list(bytes_to_unicode().values())
    vocabulary = {token: i for i, token in enumerate([*letters, *(letter + "</w>" for letter in letters)])}
    vocabulary["<|startoftext|>"], vocabulary["<|endoftext|>"] = len(vocabulary), len(vocabulary) + 1
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "vocab.json").write_text(json.dumps(vocabulary))
        Path(folder, "merges.txt").write_text("#version: 0.2\n")
        return CLIPTokenizer(f"{folder}/vocab.json", f"{folder}/merges.txt", model_max_length=TOKENS)


def _text(width: int, projected: bool = False) -> nn.Module:
    config = CLIPTextConfig(
        vocab_size=514, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=3, num_attention_heads=2,
        max_position_embeddings=TOKENS, projection_dim=width, bos_token_id=512, eos_token_id=513, pad_token_id=513,
    )  # fmt: skip
    return (CLIPTextModelWithProjection if projected else CLIPTextModel)(config).eval()


def _vae(channels: int = 4) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 8), norm_num_groups=4, latent_channels=channels, sample_size=32,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    ).eval()  # fmt: skip


def _unet(width: int, in_channels: int = 4, **extra: Any) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=16, in_channels=in_channels, out_channels=4, block_out_channels=(8, 16), layers_per_block=1,
        norm_num_groups=4, attention_head_dim=4, cross_attention_dim=width,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        **extra,
    ).eval()  # fmt: skip


def sd(width: int = 12, in_channels: int = 4) -> SDPipeline:
    """Stable Diffusion 1's classes; pictures of 32 x 32, latents of 16 x 16."""
    torch.manual_seed(0)
    return SDPipeline(
        vae=_vae(), text_encoder=_text(width), tokenizer=tokenizer(), unet=_unet(width, in_channels),
        scheduler=DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
                                set_alpha_to_one=False, steps_offset=1),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def sdxl(in_channels: int = 4) -> SDXLPipeline:
    """SDXL's classes, two text encoders and the pooled vector included."""
    torch.manual_seed(0)
    unet = _unet(
        28, in_channels, addition_embed_type="text_time", addition_time_embed_dim=4,
        transformer_layers_per_block=(1, 1),
        projection_class_embeddings_input_dim=4 * 6 + 16, use_linear_projection=True,
    )  # fmt: skip
    return SDXLPipeline(
        vae=_vae(), text_encoder=_text(12), text_encoder_2=_text(16, projected=True), tokenizer=tokenizer(),
        tokenizer_2=tokenizer(), unet=unet,
        scheduler=EulerDiscreteScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
                                         steps_offset=1, timestep_spacing="leading"),
    )  # fmt: skip


def adapter(
    pipe: Any, seed: int, rank: int = 3, kinds: tuple[str, ...] = ("to_q", "to_k", "to_v", "to_out.0"), **fields: Any
) -> Adapter:
    """A random LoRA on the U-Net layers whose paths end so ("conv1" for convolutions; "" for every layer)."""
    generator = torch.Generator().manual_seed(seed)
    deltas: dict[str, nn.Module] = {}
    for path, layer in pipe.layers().items():
        if not path.endswith(kinds) or ("text_encoder" in path and not fields.get("text_weight")):
            continue
        shape = tuple(layer.weight.shape)
        down = torch.randn((rank, *shape[1:]), generator=generator) * 0.2
        up = torch.randn((shape[0], rank, *(1,) * (len(shape) - 2)), generator=generator) * 0.2
        deltas[path] = LowRank(down, up, 0.5)
    return Adapter(fields.pop("name", f"adapter{seed}"), deltas, **fields)
