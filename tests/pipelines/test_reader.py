"""Adapter files of every naming that is read, and the refusal of all others by name."""

from __future__ import annotations

import gc
import json
import math
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from pipelines.deltas import LowRank
from pipelines.errors import AdapterMismatch, BadFile
from pipelines.weights import identify, read_header
from pipelines.weights.reader import family_of, read
from tests.pipelines import tiny
from tests.pipelines.files import factors, kohya, shapes_of

FOREIGN = json.loads(Path(__file__).with_name("foreign_keys.json").read_text("utf-8"))
SHAPES = {
    "unet.down_blocks.0.attentions.0.proj_in": (8, 8, 1, 1),
    "unet.down_blocks.0.resnets.0.conv1": (8, 8, 3, 3),
    "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k": (8, 768),
    "text_encoder.encoder.layers.0.self_attn.q_proj": (768, 768),
}
FLAT = {
    "lora_unet_down_blocks_0_attentions_0_proj_in": (8, 8, 1, 1),
    "lora_unet_down_blocks_0_resnets_0_conv1": (8, 8, 3, 3),
    "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k": (8, 768),
    "lora_te_text_model_encoder_layers_0_self_attn_q_proj": (768, 768),
}


def dense(delta: Any, shape: tuple[int, ...]) -> Tensor:
    """`dW` of a delta for a layer of this shape."""
    layer = torch.nn.Linear(1, 1) if len(shape) == 2 else torch.nn.Conv2d(1, 1, 1)
    layer.weight = torch.nn.Parameter(torch.zeros(shape))
    change: Tensor = delta.dense(layer)
    return change


class TestKohya:
    def test_linear_convolution_and_text_encoder(self, tmp_path: Path) -> None:
        path = kohya(tmp_path / "a.safetensors", FLAT, alpha=2.0)
        file = read(path, SHAPES, "sd15")
        assert set(file.deltas) == set(SHAPES) == set(file.report.matched)
        assert file.report.missing == () and file.report.ignored == ()
        for seed, (layer, shape) in enumerate(SHAPES.items()):
            down, up = factors(shape, 4, seed)
            want = (up.flatten(1) @ down.flatten(1)).reshape(shape) * (2.0 / 4)
            assert torch.allclose(dense(file.deltas[layer], shape), want, atol=1e-5)
        assert (file.report.identity.family, file.report.identity.rank) == ("sd15", 4)

    def test_without_alpha_the_scale_is_one(self, tmp_path: Path) -> None:
        file = read(kohya(tmp_path / "a.safetensors", FLAT, alpha=None), SHAPES, "sd15")
        assert {delta.scale for delta in file.deltas.values() if isinstance(delta, LowRank)} == {1.0}

    def test_a_1x1_convolution_stored_as_a_matrix_and_the_reverse(self, tmp_path: Path) -> None:
        flat = dict(FLAT)
        flat["lora_unet_down_blocks_0_attentions_0_proj_in"] = (8, 8)
        flat["lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k"] = (8, 768, 1, 1)
        assert len(read(kohya(tmp_path / "a.safetensors", flat), SHAPES, "sd15").deltas) == 4

    def test_layers_it_leaves_alone_are_reported(self, tmp_path: Path) -> None:
        some = dict(list(FLAT.items())[:1])
        report = read(kohya(tmp_path / "a.safetensors", some), SHAPES, "sd15").report
        assert set(report.missing) == {path for path in SHAPES if path.startswith("unet.")} - set(report.matched)

    def test_a_lone_alpha_changes_nothing_and_is_reported(self, tmp_path: Path) -> None:
        path = tmp_path / "a.safetensors"
        down, up = factors((8, 8, 3, 3), 4, 0)
        name = "lora_unet_down_blocks_0_resnets_0_conv1"
        lone = "lora_unet_down_blocks_0_attentions_0_proj_in.alpha"
        save_file({f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up, lone: torch.ones(())}, path)
        assert read(path, SHAPES, "sd15").report.ignored == (lone,)


def described(path: Path, config: dict[str, Any], prefix: str = "unet.") -> Path:
    """A file in peft's dotted naming with a LoraConfig beside it."""
    tensors: dict[str, Tensor] = {}
    for seed, layer in enumerate(SHAPES):
        down, up = factors(SHAPES[layer], 4, seed)
        name = layer.removeprefix("unet.") if not prefix else layer
        tensors |= {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}
    save_file(tensors, path, {"lora_adapter_metadata": json.dumps(config)})
    return path


class TestDotted:
    @pytest.mark.parametrize(
        "ends",
        [
            ("lora_A", "lora_B"),
            ("lora.down", "lora.up"),
            ("lora_A.default", "lora_B.default"),
            ("lora_linear_layer.down", "lora_linear_layer.up"),
        ],
    )
    @pytest.mark.parametrize("prefix", ["", "unet.", "base_model.model.", "base_model.model.unet."])
    def test_spellings(self, tmp_path: Path, ends: tuple[str, str], prefix: str) -> None:
        down, up = factors((8, 768), 4, 0)
        name = f"{prefix}mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
        path = tmp_path / "a.safetensors"
        save_file({f"{name}.{ends[0]}.weight": down, f"{name}.{ends[1]}.weight": up}, path)
        (delta,) = read(path, SHAPES, "sd15").deltas.values()
        assert isinstance(delta, LowRank) and torch.equal(delta.down, down) and torch.equal(delta.up, up)

    def test_alphas_of_the_description(self, tmp_path: Path) -> None:
        config = {
            "unet.lora_alpha": 8,
            "unet.alpha_pattern": {"attn2.to_k": 2, "conv": 99},
            "text_encoder.lora_alpha": 1,
            "text_encoder.use_rslora": True,
        }
        scales = {
            path: delta.scale
            for path, delta in read(described(tmp_path / "a.safetensors", config), SHAPES, "sd15").deltas.items()
            if isinstance(delta, LowRank)
        }
        assert scales == dict(zip(SHAPES, [8 / 4, 8 / 4, 2 / 4, 1 / 4**0.5], strict=True))

    @pytest.mark.parametrize("alpha", [math.nan, math.inf, 10**400, True, "8", None])
    def test_an_alpha_that_is_no_number(self, tmp_path: Path, alpha: Any) -> None:
        path = described(tmp_path / "a.safetensors", {"unet.lora_alpha": alpha})
        with pytest.raises(BadFile, match="lora_alpha"):
            read(path, SHAPES, "sd15")

    def test_a_pattern_that_is_no_path(self, tmp_path: Path) -> None:
        path = described(tmp_path / "a.safetensors", {"unet.alpha_pattern": {"(a+)+$": 1}})
        with pytest.raises(BadFile, match=re.escape("(a+)+$")):
            read(path, SHAPES, "sd15")


class TestRefused:
    def test_another_family_is_named(self, tmp_path: Path) -> None:
        name = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k"
        path = kohya(tmp_path / "big.safetensors", {name: (8, 2048)})
        with pytest.raises(AdapterMismatch, match=r"“big.safetensors” is made for SDXL .* SD 1.5") as caught:
            read(path, SHAPES, "sd15")
        assert caught.value.family == "sdxl"

    def test_unknown_layers_are_named(self, tmp_path: Path) -> None:
        strange = {f"lora_unet_strange_{i}": (4, 4) for i in range(5)}
        with pytest.raises(
            AdapterMismatch, match="15 of 27 weights find no layer in SD 1.5: lora_unet_strange_0"
        ) as caught:
            read(kohya(tmp_path / "a.safetensors", FLAT | strange), SHAPES, "sd15")
        assert len(caught.value.keys) == 15

    @pytest.mark.parametrize("name", FOREIGN)
    def test_other_models_files(self, tmp_path: Path, name: str) -> None:
        path = tmp_path / "foreign.safetensors"
        save_file({key: torch.ones(() if key.endswith("alpha") else (1, 1)) for key in FOREIGN[name]["keys"]}, path)
        with pytest.raises(AdapterMismatch) as caught:
            read(path, SHAPES, "sd15")
        title = {"flux": "FLUX", "qwen": "Qwen-Image|diffusion transformer", "krea2": "Krea 2", "anima": "Anima"}
        assert re.search(
            f"is made for (a )?({title[name.split('_')[0]]}) and cannot be used with SD 1.5", str(caught.value)
        )

    @pytest.mark.parametrize(
        ("part", "kind"),
        [
            ("hada_w1_a", "LoHa"),
            ("lokr_w1", "LoKr"),
            ("dora_scale", "DoRA"),
            ("oft_blocks", "OFT"),
            ("diff", "difference"),
            ("lora_mid.weight", "Tucker"),
        ],
    )
    def test_other_algorithms(self, tmp_path: Path, part: str, kind: str) -> None:
        path = kohya(tmp_path / "a.safetensors", {})
        name = next(iter(FLAT))
        down, up = factors((8, 8, 1, 1), 4, 0)
        save_file(
            {f"{name}.{part}": torch.ones(2, 2), f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up}, path
        )
        with pytest.raises(AdapterMismatch, match=kind):
            read(path, SHAPES, "sd15")

    def test_no_adapter_at_all(self, tmp_path: Path) -> None:
        path = tmp_path / "a.safetensors"
        save_file({"model.weight": torch.ones(2)}, path)
        with pytest.raises(AdapterMismatch, match="no LoRA weights"):
            read(path, SHAPES, "sd15")

    @pytest.mark.parametrize("value", [math.nan, math.inf])
    @pytest.mark.parametrize("part", ["lora_up.weight", "alpha"])
    def test_values_that_are_not_numbers(self, tmp_path: Path, value: float, part: str) -> None:
        name = "lora_unet_down_blocks_0_resnets_0_conv1"
        down, up = factors((8, 8, 3, 3), 4, 0)
        tensors = {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up, f"{name}.alpha": torch.ones(1)}
        tensors[f"{name}.{part}"].view(-1)[0] = value
        save_file(tensors, tmp_path / "a.safetensors")
        with pytest.raises(BadFile, match=f"not numbers in “{name}.{part}”"):
            read(tmp_path / "a.safetensors", SHAPES, "sd15")

    @pytest.mark.parametrize("rank", [0, 3])
    def test_factors_that_do_not_fit(self, tmp_path: Path, rank: int) -> None:
        name = "lora_unet_down_blocks_0_resnets_0_conv1"
        tensors = {f"{name}.lora_down.weight": torch.ones(rank, 8, 1, 3), f"{name}.lora_up.weight": torch.ones(8, rank)}
        save_file(tensors | {f"{name}.alpha": torch.ones(())}, tmp_path / "a.safetensors")
        with pytest.raises(AdapterMismatch, match="unet.down_blocks.0.resnets.0.conv1"):
            read(tmp_path / "a.safetensors", SHAPES, "sd15")

    def test_half_a_pair(self, tmp_path: Path) -> None:
        name = "lora_unet_down_blocks_0_resnets_0_conv1.lora_down.weight"
        save_file({name: torch.ones(4, 8, 3, 3)}, tmp_path / "a.safetensors")
        with pytest.raises(BadFile, match=f"incomplete: “{name}”"):
            read(tmp_path / "a.safetensors", SHAPES, "sd15")

    def test_two_spellings_of_one_layer(self, tmp_path: Path) -> None:
        rest = "text_model_encoder_layers_0_self_attn_q_proj"
        path = kohya(tmp_path / "a.safetensors", {f"lora_te_{rest}": (768, 768), f"lora_te1_{rest}": (768, 768)})
        with pytest.raises(BadFile, match="same layer twice"):
            read(path, SHAPES, "sd15")


def test_a_whole_tiny_sdxl_in_kohya_names(tmp_path: Path) -> None:
    pipe = tiny.sdxl()
    shapes = shapes_of(pipe)
    start = {"unet": "lora_unet", "text_encoder": "lora_te1", "text_encoder_2": "lora_te2"}
    flat = {
        f"{start[path.partition('.')[0]]}_{path.partition('.')[2].replace('.', '_')}": s for path, s in shapes.items()
    }
    file = read(kohya(tmp_path / "a.safetensors", flat), shapes, "sdxl")
    assert set(file.deltas) == set(shapes)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads Linux's table of memory maps")
def test_no_file_stays_open_or_mapped(tmp_path: Path) -> None:
    path = kohya(tmp_path / "mapped-or-not.safetensors", FLAT)
    file = read(path, SHAPES, "sd15")
    gc.collect()
    assert path.name not in Path("/proc/self/maps").read_text()
    assert not any(path.name in str(link.resolve()) for link in Path("/proc/self/fd").iterdir())
    path.write_bytes(b"")  # what was read does not change with the file
    assert all(tensor.isfinite().all() for delta in file.deltas.values() for tensor in delta.parameters())


def test_identify_reads_what_files_say_of_themselves(tmp_path: Path) -> None:
    metadata = {"modelspec.title": "Ink", "modelspec.trigger_phrase": "inkstyle", "modelspec.license": "cc0-1.0"}
    found = identify(read_header(kohya(tmp_path / "a.safetensors", FLAT, **metadata)))
    assert (found.title, found.trigger, found.licence, found.scheme) == ("Ink", "inkstyle", "cc0-1.0", "kohya")


def test_families_by_the_width_of_text() -> None:
    assert [family_of(width) for width in (128, 768, 1024, 2048)] == ["toybox", "sd15", "sd2", "sdxl"]
    with pytest.raises(BadFile, match=r"width 4096 .* 768 \(SD 1.5\)"):
        family_of(4096)
