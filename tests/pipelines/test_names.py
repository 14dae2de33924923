"""Kohya's names of SDXL and SD 1.5 layers, against diffusers' own converter."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint
from torch import nn

from pipelines.weights.names import dotted, original_name, underscored

SDXL = dict(
    block_out_channels=(320, 640, 1280), cross_attention_dim=2048, transformer_layers_per_block=(1, 2, 10),
    down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), attention_head_dim=(5, 10, 20),
    use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=256,
    projection_class_embeddings_input_dim=2816, layers_per_block=2,
)  # fmt: skip
SD15 = dict(cross_attention_dim=768, attention_head_dim=8)


@functools.cache
def unet(name: str) -> UNet2DConditionModel:
    """The real architecture, without weights."""
    with torch.device("meta"):
        return UNet2DConditionModel(**{"SDXL": SDXL, "SD 1.5": SD15}[name])


def layers(name: str) -> list[str]:
    return [f"unet.{path}" for path, module in unet(name).named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]


KNOWN = {
    "SDXL": {
        "input_blocks_4_1_transformer_blocks_0_attn1_to_q":
            "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q",
        "input_blocks_5_1_proj_in": "down_blocks.1.attentions.1.proj_in",
        "input_blocks_7_1_transformer_blocks_9_ff_net_0_proj":
            "down_blocks.2.attentions.0.transformer_blocks.9.ff.net.0.proj",
        "input_blocks_8_1_proj_out": "down_blocks.2.attentions.1.proj_out",
        "input_blocks_3_0_op": "down_blocks.0.downsamplers.0.conv",
        "input_blocks_4_0_skip_connection": "down_blocks.1.resnets.0.conv_shortcut",
        "middle_block_0_in_layers_2": "mid_block.resnets.0.conv1",
        "middle_block_1_transformer_blocks_0_attn2_to_k": "mid_block.attentions.0.transformer_blocks.0.attn2.to_k",
        "middle_block_2_emb_layers_1": "mid_block.resnets.1.time_emb_proj",
        "output_blocks_0_1_proj_in": "up_blocks.0.attentions.0.proj_in",
        "output_blocks_2_2_conv": "up_blocks.0.upsamplers.0.conv",
        "output_blocks_5_1_proj_in": "up_blocks.1.attentions.2.proj_in",
        "output_blocks_5_2_conv": "up_blocks.1.upsamplers.0.conv",
        "output_blocks_8_0_out_layers_3": "up_blocks.2.resnets.2.conv2",
        "label_emb_0_0": "add_embedding.linear_1",
        "time_embed_2": "time_embedding.linear_2",
        "input_blocks_0_0": "conv_in",
        "out_2": "conv_out",
    },
    "SD 1.5": {
        "down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_out_0":
            "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0",
        "mid_block_attentions_0_proj_in": "mid_block.attentions.0.proj_in",
        "up_blocks_3_resnets_2_conv_shortcut": "up_blocks.3.resnets.2.conv_shortcut",
        "input_blocks_1_1_proj_in": "down_blocks.0.attentions.0.proj_in",
        "output_blocks_2_1_conv": "up_blocks.0.upsamplers.0.conv",
        "output_blocks_5_2_conv": "up_blocks.1.upsamplers.0.conv",
    },
}  # fmt: skip


@pytest.mark.parametrize("name", KNOWN)
def test_well_known_names(name: str) -> None:
    table = underscored(layers(name))
    assert {key: table[f"lora_unet_{key}"].removeprefix("unet.") for key in KNOWN[name]} == KNOWN[name]


@pytest.mark.parametrize("name", KNOWN)
def test_original_names_are_those_that_diffusers_converts_from(name: str) -> None:
    paths = [path.removeprefix("unet.") for path in layers(name)]
    attentive = {int(path.split(".")[1]) for path in paths if path.startswith("up_blocks") and ".attentions." in path}
    original = {original_name(path, 2, attentive): path for path in paths}
    assert len(original) == len(paths), "no two layers share a name"
    checkpoint: dict[str, Any] = {
        f"model.diffusion_model.{theirs}.{part}": torch.tensor(float(number))
        for number, theirs in enumerate(original)
        for part in ("weight", "bias")
    }
    converted = convert_ldm_unet_checkpoint(checkpoint, dict(unet(name).config))
    want = {f"{path}.weight": float(number) for number, path in enumerate(original.values())}
    assert {key: float(value) for key, value in converted.items() if key.endswith(".weight")} == want


def test_every_layer_has_one_key_in_each_scheme() -> None:
    paths = [
        *layers("SDXL"),
        "text_encoder.encoder.layers.0.mlp.fc1",
        "text_encoder_2.text_model.encoder.layers.0.mlp.fc1",
    ]
    assert set(dotted(paths).values()) == set(paths) == set(underscored(paths).values())
    table = underscored(paths)
    assert (
        table["lora_te1_encoder_layers_0_mlp_fc1"] == paths[-2]
        and table["lora_te2_encoder_layers_0_mlp_fc1"] == paths[-1]
    )
    assert dotted(paths)["text_encoder_2.encoder.layers.0.mlp.fc1"] == paths[-1]
