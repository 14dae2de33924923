"""Bases: found, described without being loaded, and opened offline; damaged ones are said to be so."""

from __future__ import annotations

import json
import socket
import struct
from pathlib import Path
from typing import Any

import pytest
import torch

from studio import devices
from studio.bases import Bases
from studio.errors import BadFile, BadRequest, UnknownName, UnsafeFile
from studio.settings import ROOT, Settings
from tests.pipelines import tiny


def settings_of(data_dir: Path, assets: Path, **more: Any) -> Settings:
    return Settings(data_dir=data_dir, assets_dir=assets, device="cpu", **more)


@pytest.fixture
def bases(tiny_assets: Path, data_dir: Path) -> Bases:
    return Bases(settings_of(data_dir, tiny_assets))


def sparse_checkpoint(path: Path, tensors: dict[str, tuple[int, ...]], dtype: str = "F16") -> None:
    """A safetensors file of zeros whose weights take no room on the disk."""
    header, position = {}, 0
    for name, shape in tensors.items():
        size = 2 * torch.Size(shape).numel()
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [position, position + size]}
        position += size
    raw = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        file.truncate(8 + len(raw) + position)


def cross_attention(width: int) -> dict[str, tuple[int, ...]]:
    return {"model.diffusion_model.input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight": (640, width)}


def test_toybox_is_there_and_described_without_loading(bases: Bases) -> None:
    info = bases.info("toybox")
    assert (info.family, info.title, info.width, info.steps) == ("toybox", "Tiny", 32, 3)
    assert bases.names() == ("toybox",)
    assert bases._loaded is None


def test_folders_and_single_files_are_found_by_name(bases: Bases, data_dir: Path) -> None:
    tiny.sd(width=768).save_pretrained(data_dir / "bases" / "someone--small", safe_serialization=True)
    sparse_checkpoint(data_dir / "bases" / "anime" / "big.safetensors", cross_attention(2048))
    assert bases.names() == ("toybox", "someone/small", "anime/big")
    assert [bases.info(name).family for name in bases.names()] == ["toybox", "sd15", "sdxl"]
    assert bases.info("anime/big").width == 1024


def test_further_folders_are_read_too(tiny_assets: Path, data_dir: Path, tmp_path: Path) -> None:
    sparse_checkpoint(tmp_path / "webui" / "old.safetensors", cross_attention(768))
    found = Bases(settings_of(data_dir, tiny_assets, base_dirs=(tmp_path / "webui",)))
    assert found.info("old").family == "sd15"


def test_a_card_beside_a_single_file_overrides_its_defaults(bases: Bases, data_dir: Path) -> None:
    path = data_dir / "bases" / "noob.safetensors"
    sparse_checkpoint(path, cross_attention(2048))
    path.with_suffix(".json").write_text(json.dumps({"title": "Noob", "steps": 28, "prediction_type": "v_prediction"}))
    assert (bases.info("noob").title, bases.info("noob").steps) == ("Noob", 28)
    path.with_suffix(".json").write_text("{")
    with pytest.raises(BadFile, match="noob.json"):
        bases.info("noob")
    assert [info.name for info in bases.infos()] == ["toybox"]


def test_a_folder_loads_and_stays_loaded(bases: Bases, data_dir: Path) -> None:
    tiny.sd(width=768).save_pretrained(data_dir / "bases" / "small", safe_serialization=True)
    pipe = bases.load("small")
    assert pipe.family == "sd15" and bases.load("small") is pipe
    assert bases.load("toybox") is not pipe


def test_a_folder_of_pickles_is_refused(bases: Bases, data_dir: Path) -> None:
    folder = data_dir / "bases" / "pickled"
    tiny.sd(width=768).save_pretrained(folder, safe_serialization=True)
    for weights in folder.rglob("*.safetensors"):
        weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(BadFile, match="pickles"):
        bases.load("pickled")


@pytest.mark.parametrize(
    ("name", "error", "said"),
    [
        ("toybo", UnknownName, "toybox"),
        ("some/one", BadRequest, "bases get some/one"),
        ("../secret.ckpt", UnsafeFile, "pickle"),
    ],
)
def test_unknown_bases(bases: Bases, name: str, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        bases.info(name)


def test_damaged_and_foreign_files_are_named(bases: Bases, data_dir: Path) -> None:
    sparse_checkpoint(data_dir / "bases" / "strange.safetensors", cross_attention(4096))
    (data_dir / "bases" / "cut.safetensors").write_bytes(b"\x10" + b"\0" * 20)
    for name in ("strange", "cut"):
        with pytest.raises(BadFile, match=name):
            bases.info(name)


def full_size_sd15() -> dict[str, tuple[int, ...]]:
    """Every tensor of an SD 1.5 checkpoint under its original name, from the shipped configs on the meta device."""
    from accelerate import init_empty_weights
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    from pipelines.weights.names import original_name

    configs = ROOT / "assets" / "configs" / "sd15"
    with init_empty_weights():
        unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(configs / "unet"))
        vae = AutoencoderKL.from_config(AutoencoderKL.load_config(configs / "vae"))
        text = CLIPTextModel(CLIPTextConfig.from_pretrained(configs / "text_encoder"))
    tensors: dict[str, tuple[int, ...]] = {}
    for name, value in unet.state_dict().items():
        path, _, leaf = name.rpartition(".")
        original = original_name(path, 2, {1, 2, 3})
        for ours, theirs in (("conv_norm_out", "out.0"), (".norm1", ".in_layers.0"), (".norm2", ".out_layers.0")):
            if "resnets" in path or ours == "conv_norm_out":
                original = original.replace(ours, theirs)
        tensors[f"model.diffusion_model.{original}.{leaf}"] = tuple(value.shape)
    for name, value in vae.state_dict().items():
        tensors[f"first_stage_model.{_original_vae(name)}"] = tuple(value.shape)
    for name, value in text.state_dict().items():
        tensors[f"cond_stage_model.transformer.text_model.{name.removeprefix('text_model.')}"] = tuple(value.shape)
    return tensors


def _original_vae(name: str) -> str:
    import re

    def block(found: re.Match[str]) -> str:
        side, number, kind, index = found[1], int(found[2]), found[3], found[4]
        level = number if side == "down" else 3 - number
        return f"{side}.{level}." + (f"block.{index}" if kind == "resnets" else f"{kind.removesuffix('rs')}")

    name = re.sub(r"(down|up)_blocks\.(\d)\.(resnets|downsamplers|upsamplers)\.(\d)", block, name)
    for ours, theirs in (
        ("downsample.conv", "downsample.conv"), ("conv_shortcut", "nin_shortcut"), ("conv_norm_out", "norm_out"),
        ("mid_block.resnets.0", "mid.block_1"), ("mid_block.resnets.1", "mid.block_2"),
        ("mid_block.attentions.0", "mid.attn_1"), ("group_norm", "norm"), ("to_q", "q"), ("to_k", "k"), ("to_v", "v"),
        ("to_out.0", "proj_out"),
    ):  # fmt: skip
        name = name.replace(ours, theirs)
    return name


def test_a_single_file_opens_with_every_socket_blocked(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, tiny_assets: Path
) -> None:
    """The whole of SD 1.5 at full size, as zeros that take no room: configs and tokenizer come from the assets."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError("no network here")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    sparse_checkpoint(data_dir / "bases" / "v15.safetensors", full_size_sd15() | {"v_pred": (0,), "ztsnr": (0,)})
    bases = Bases(settings_of(data_dir, ROOT / "assets", dtype="bfloat16"))
    pipe = bases.load("v15")
    assert pipe.family == "sd15"
    assert pipe.unet.dtype == torch.bfloat16 and pipe.vae.dtype == torch.float32
    assert sum(parameter.numel() for parameter in pipe.unet.parameters()) == 859_520_964
    assert pipe.tokenizer("a cat").input_ids[:3] == [49406, 320, 2368]
    # The marks of v-prediction and zero-terminal-SNR checkpoints are heeded.
    assert pipe.scheduler.config.prediction_type == "v_prediction"
    assert pipe.scheduler.config.rescale_betas_zero_snr


def test_the_cpu_takes_no_float16(data_dir: Path, tiny_assets: Path) -> None:
    with pytest.raises(BadRequest, match="float32 or bfloat16"):
        devices.plan(settings_of(data_dir, tiny_assets, dtype="float16"), "sd15")


def test_a_device_that_is_not_there_is_named(data_dir: Path, tiny_assets: Path) -> None:
    if torch.cuda.is_available():
        plan = devices.plan(Settings(data_dir=data_dir, assets_dir=tiny_assets, device="cuda"), "sd15")
        assert plan.device == "cuda"
    else:
        with pytest.raises(BadRequest, match="available: .*cpu"):
            devices.plan(Settings(data_dir=data_dir, assets_dir=tiny_assets, device="cuda"), "sd15")


@pytest.mark.parametrize(("memory", "expected"), [(24.0, "none"), (8.0, "model"), (3.0, "sequential")])
def test_offload_follows_memory(memory: float, expected: str) -> None:
    assert devices._offload("auto", "cuda", memory, "sdxl") == expected
    assert devices._offload("none", "cuda", memory, "sdxl") == "none"


def test_sdxls_vae_never_runs_in_float16(data_dir: Path, tiny_assets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_device", lambda asked: "cuda")
    monkeypatch.setattr(devices, "_memory", lambda device: 24.0)
    for dtype in ("auto", "float16", "bfloat16"):
        plan = devices.plan(Settings(data_dir=data_dir, assets_dir=tiny_assets, dtype=dtype), "sdxl")
        assert plan.vae_dtype != torch.float16


def test_another_vae_is_used_inside_the_block_only(bases: Bases, data_dir: Path) -> None:
    pipe = bases.load("toybox")
    own = pipe.vae
    with bases.with_vae(pipe, None):
        assert pipe.vae is own
    with pytest.raises(UnknownName, match="sharp"), bases.with_vae(pipe, "sharp"):
        pass
    (data_dir / "vaes").mkdir(parents=True)
    sparse_checkpoint(data_dir / "vaes" / "sharp.safetensors", {"decoder.conv_in.weight": (8, 4, 3, 3)})
    with pytest.raises(BadRequest, match="Toybox"), bases.with_vae(pipe, "sharp"):
        pass
    assert pipe.vae is own
