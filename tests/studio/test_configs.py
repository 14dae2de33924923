"""The shipped configurations have exactly the published sizes, and the shipped vocabulary is CLIP's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKL, EulerDiscreteScheduler, PNDMScheduler, UNet2DConditionModel
from hypothesis import given
from hypothesis import strategies as st
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from tools.clip_vocabulary import byte_letters

CONFIGS = Path(__file__).parents[2] / "assets" / "configs"
START, END = 49406, 49407


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return CLIPTokenizer.from_pretrained(CONFIGS / "clip", local_files_only=True)


@pytest.fixture(scope="module")
def second_tokenizer() -> Any:
    """SDXL's tokenizer_2 is the same vocabulary padded with "!"."""
    return CLIPTokenizer.from_pretrained(CONFIGS / "clip", pad_token="!", local_files_only=True)


def parameters(model: torch.nn.Module) -> int:
    """Number of weights of a model that may be on the meta device."""
    return sum(weight.numel() for weight in model.parameters())


@pytest.mark.parametrize(("family", "count"), [("sd15", 859_520_964), ("sdxl", 2_567_463_684)])
def test_the_unets_have_the_published_size(family: str, count: int) -> None:
    config = UNet2DConditionModel.load_config(CONFIGS / family, subfolder="unet", local_files_only=True)
    with init_empty_weights():
        assert parameters(UNet2DConditionModel.from_config(config)) == count


@pytest.mark.parametrize(("family", "factor", "upcast"), [("sd15", 0.18215, True), ("sdxl", 0.13025, True)])
def test_the_autoencoders_have_the_published_size_and_scale(family: str, factor: float, upcast: bool) -> None:
    config = AutoencoderKL.load_config(CONFIGS / family, subfolder="vae", local_files_only=True)
    with init_empty_weights():
        vae = AutoencoderKL.from_config(config)
    assert (parameters(vae), vae.config.scaling_factor, vae.config.force_upcast) == (83_653_863, factor, upcast)


@pytest.mark.parametrize(
    ("folder", "model", "count"),
    [
        ("sd15/text_encoder", CLIPTextModel, 123_060_480),
        ("sdxl/text_encoder", CLIPTextModel, 123_060_480),
        ("sdxl/text_encoder_2", CLIPTextModelWithProjection, 694_659_840),
    ],
)
def test_the_text_encoders_have_the_published_size(folder: str, model: Any, count: int) -> None:
    with init_empty_weights():
        assert parameters(model(CLIPTextConfig.from_pretrained(CONFIGS / folder))) == count


def test_the_schedules_are_the_ones_the_models_were_trained_with() -> None:
    pndm = PNDMScheduler.from_pretrained(CONFIGS / "sd15", subfolder="scheduler")
    euler = EulerDiscreteScheduler.from_pretrained(CONFIGS / "sdxl", subfolder="scheduler")
    # Known of this schedule: after 1000 steps 0.466 % of the signal's power is left.
    for scheduler in (pndm, euler):
        assert scheduler.alphas_cumprod[-1].item() == pytest.approx(0.00466, abs=1e-5)
        assert scheduler.config.steps_offset == 1
    assert euler.config.timestep_spacing == "leading"


@pytest.mark.parametrize("family", ["sd15", "sdxl"])
def test_every_component_of_the_index_has_its_configuration(family: str) -> None:
    index = json.loads((CONFIGS / family / "model_index.json").read_text("utf-8"))
    parts = {name for name, value in index.items() if isinstance(value, list) and value[0]}
    folders = {path.name for path in (CONFIGS / family).iterdir() if path.is_dir()}
    assert parts - folders == {name for name in parts if name.startswith("tokenizer")}, "tokenizers come from clip/"


def test_known_pieces_have_their_ids(tokenizer: Any) -> None:
    pieces = {"<|startoftext|>": START, "<|endoftext|>": END, "a</w>": 320, "cat</w>": 2368, "dog</w>": 1929, "!": 0}
    assert {piece: tokenizer.convert_tokens_to_ids(piece) for piece in pieces} == pieces
    assert len(tokenizer) == 49_408
    assert sorted(tokenizer.get_vocab().values()) == list(range(49_408))


def test_both_tokenizers_differ_in_their_padding_only(tokenizer: Any, second_tokenizer: Any) -> None:
    options = {"padding": "max_length", "max_length": 77, "truncation": True}
    first, second = (t("a cat and a dog", **options).input_ids for t in (tokenizer, second_tokenizer))
    assert first == [START, 320, 2368, 537, 320, 1929, *[END] * 71]
    assert second == [START, 320, 2368, 537, 320, 1929, END, *[0] * 70]
    assert tokenizer.model_max_length == 77


@given(text=st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]), max_size=40))
def test_any_text_has_ids_and_none_is_lost(tokenizer: Any, text: str) -> None:
    ids = tokenizer(text).input_ids
    pieces = tokenizer.convert_ids_to_tokens(ids[1:-1])
    number = {letter: byte for byte, letter in zip(byte_numbers(), byte_letters(), strict=True)}
    back = bytes(number[letter] for piece in pieces for letter in piece.removesuffix("</w>")).decode("utf-8")
    shown = tokenizer.backend_tokenizer.normalizer.normalize_str(text)
    assert (ids[0], ids[-1]) == (START, END)
    assert back == "".join(shown.split())


def byte_numbers() -> list[int]:
    """The byte that each of `byte_letters()` stands for: printable ones for themselves, the rest in order."""
    own = [ord(letter) for letter in byte_letters() if ord(letter) < 256]
    return own + [byte for byte in range(256) if byte not in own]
