"""Our loop against stock diffusers: the same latents, bit for bit, wherever both can do the same."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from torch import Tensor

from pipelines.adapters import Adapter
from pipelines.composer import Composer
from pipelines.methods.merge import Merge
from pipelines.weights.reader import read
from tests.pipelines import tiny
from tests.pipelines.shots import SCHEDULERS, Beside, Shot, ours, photo, plain, spot, theirs

Build = Callable[[], Any]


@pytest.fixture(scope="module")
def sd() -> Any:
    return tiny.sd()


@pytest.fixture(scope="module")
def sdxl() -> Any:
    return tiny.sdxl()


@pytest.fixture(params=["sd", "sdxl"])
def pipe(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


def assert_same(pipe: Any, shot: Shot) -> None:
    """Bit for bit, and not because both are trivial."""
    want, got = theirs(plain(pipe, shot), shot), ours(pipe, shot)
    assert got.dtype == torch.float32 and bool(want.isfinite().all()) and float(want.std()) > 1e-3
    assert not torch.equal(want[0], want[-1]) or len(shot.seeds) == 1
    assert torch.equal(got, want), f"differs by {(got - want).abs().max():g}"


class TestTextToImage:
    @pytest.mark.parametrize("sampler", SCHEDULERS)
    def test_every_sampler(self, pipe: Any, sampler: str) -> None:
        assert_same(pipe, Shot(sampler))

    @pytest.mark.parametrize(
        "shot",
        [
            Shot(negative="a dog"),
            Shot("Euler", negative="a dog", rescale=0.7),
            Shot(guidance=1.0),
            Shot("Euler a", guidance=0.0, seeds=(9,)),
            Shot("DPM++ 2M", prompt="", seeds=(1, 2, 3), steps=7),
            Shot("Euler", prompt="far more words than the sixteen tokens that fit into it", width=48, height=40),
            Shot("DPM++ 2M Karras", steps=1),
        ],
        ids=["negative", "rescale", "unguided", "zero guidance", "empty prompt", "cut prompt", "one step"],
    )
    def test_settings(self, pipe: Any, shot: Shot) -> None:
        assert_same(pipe, shot)

    @pytest.mark.parametrize("sampler", ["DDIM", "Euler", "DPM++ 2M", "UniPC"])
    @pytest.mark.parametrize("kind", [DDIMScheduler, EulerDiscreteScheduler])
    def test_v_prediction_and_zero_snr(self, pipe: Any, sampler: str, kind: type[Any]) -> None:
        base = kind.from_config(
            pipe.scheduler.config,
            prediction_type="v_prediction",
            rescale_betas_zero_snr=True,
            timestep_spacing="trailing",
        )
        with pipe.sampling(base):
            assert_same(pipe, Shot(sampler, rescale=0.7))

    def test_pictures_of_a_batch_do_not_depend_on_each_other(self, pipe: Any) -> None:
        together = ours(pipe, Shot("Euler a", seeds=(5, 6)))
        apart = torch.cat([ours(pipe, Shot("Euler a", seeds=(seed,))) for seed in (5, 6)])
        assert distance(together, apart) < 1e-5

    def test_the_same_request_gives_the_same_latents(self, pipe: Any) -> None:
        assert torch.equal(ours(pipe, Shot("DPM++ 2M SDE")), ours(pipe, Shot("DPM++ 2M SDE")))


class TestImageToImage:
    @pytest.mark.parametrize("sampler", ["DDIM", "DPM++ 2M Karras", "Euler", "Euler a", "Heun", "UniPC"])
    @pytest.mark.parametrize("strength", [0.3, 0.75, 1.0])
    def test_strengths(self, pipe: Any, sampler: str, strength: float) -> None:
        assert_same(pipe, Shot(sampler, steps=5, strength=strength, picture=photo(), negative="a dog"))


class TestInpainting:
    @pytest.mark.parametrize("sampler", ["DDIM", "DPM++ 2M", "Euler", "Euler a"])
    @pytest.mark.parametrize("strength", [0.5, 1.0])
    def test_four_channels(self, pipe: Any, sampler: str, strength: float) -> None:
        assert_same(pipe, Shot(sampler, strength=strength, picture=photo(), mask=spot()))

    @pytest.mark.parametrize("build", [tiny.sd, tiny.sdxl])
    @pytest.mark.parametrize("strength", [0.5, 1.0])
    def test_nine_channels(self, build: Callable[..., Any], strength: float) -> None:
        assert_same(build(in_channels=9), Shot(strength=strength, picture=photo(), mask=spot()))

    def test_what_is_kept_is_the_given_picture(self, pipe: Any) -> None:
        shot = Shot(picture=photo(), mask=spot(), strength=0.6)
        latents = ours(pipe, shot)
        with torch.no_grad():
            start = pipe.begin(shot.task)
        kept = start.mask == 0
        assert 0 < float(kept.float().mean()) < 1
        assert torch.equal(torch.where(kept, latents, 0), torch.where(kept, start.known, 0))
        assert not torch.equal(latents, start.known)


class TestClipSkip:
    """Against encoders whose last layers were cut off."""

    @pytest.mark.parametrize("skip", [1, 2, 3])
    def test_one_encoder(self, sd: Any, skip: int) -> None:
        short = tiny.sd()
        short.text_encoder = copy.deepcopy(sd.text_encoder)
        layers = short.text_encoder.encoder.layers
        del layers[len(layers) - (skip - 1) :]
        shot = Shot(negative="a dog", clip_skip=skip)
        want = theirs(plain(short, shot), Shot(negative="a dog"))
        assert torch.equal(ours(sd, shot), want)
        assert skip == 1 or not torch.equal(want, ours(sd, Shot(negative="a dog")))

    @pytest.mark.parametrize(("skip", "layers"), [(1, 2), (2, 2), (3, 1)])
    def test_two_encoders(self, sdxl: Any, skip: int, layers: int) -> None:
        with torch.no_grad():
            got = sdxl.embed("a cat", None, skip).text["embeds"]
            parts = []
            for tokenizer, encoder in ((sdxl.tokenizer, sdxl.text_encoder), (sdxl.tokenizer_2, sdxl.text_encoder_2)):
                ids = tokenizer("a cat", padding="max_length", return_tensors="pt").input_ids
                parts.append(encoder(ids, output_hidden_states=True).hidden_states[layers])
        assert torch.equal(got, torch.cat(parts, dim=-1))


UNET = ["to_q", "to_k", "to_v", "to_out.0", "conv1", "conv2", "conv_shortcut", "proj_in", "time_emb_proj", "net.2"]
TEXT = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]


def trained_elsewhere(build: Build, folder: Path, seed: int) -> Path:
    """A file as a diffusers training script saves it: peft's random factors, rank and alpha in the metadata."""
    pipe = build()
    torch.manual_seed(seed)
    given: dict[str, Any] = {}
    for component, targets in (("unet", UNET), ("text_encoder", TEXT), ("text_encoder_2", TEXT)):
        model = getattr(pipe, component, None)
        if model is None:
            continue
        model.add_adapter(LoraConfig(r=2 + seed, lora_alpha=1.5, target_modules=targets, init_lora_weights=False))
        given[f"{component}_lora_layers"] = get_peft_model_state_dict(model)
        given[f"{component}_lora_adapter_metadata"] = model.peft_config["default"].to_dict()
    stock = plain(pipe, Shot())
    stock.save_lora_weights(folder, weight_name=f"{seed}.safetensors", **given)
    return folder / f"{seed}.safetensors"


@pytest.mark.parametrize("method", [Merge, Beside], ids=["fused", "unfused"])
@pytest.mark.parametrize(
    ("build", "shot"),
    [(tiny.sd, Shot()), (tiny.sd, Shot("DPM++ 2M", picture=photo(), strength=0.8)), (tiny.sdxl, Shot("Euler"))],
    ids=["sd", "sd img2img", "sdxl"],
)
def test_adapters_act_as_through_peft(tmp_path: Path, build: Build, shot: Shot, method: type[Composer]) -> None:
    files = [trained_elsewhere(build, tmp_path, seed) for seed in (1, 2, 3)]
    weights = [1.0, 0.6, -0.3]
    reference = build()
    stock = plain(reference, shot)
    for file in files:
        stock.load_lora_weights(tmp_path, weight_name=file.name, adapter_name=f"a{file.stem}")
    stock.set_adapters([f"a{file.stem}" for file in files], weights)
    want = theirs(stock, shot)

    pipe = build()
    shapes = {path: tuple(layer.weight.shape) for path, layer in pipe.layers().items()}
    adapters = [
        Adapter(file.stem, read(file, shapes, pipe.family).deltas, weight, weight)
        for file, weight in zip(files, weights, strict=True)
    ]
    got = ours(pipe, shot, adapters, method)
    assert distance(ours(pipe, shot), want) > 1e-2, "the adapters must matter"
    assert distance(got, want) <= 1e-5


def distance(a: Tensor, b: Tensor) -> float:
    """Largest difference, relative to the values' spread where that is above one."""
    return float((a - b).abs().max() / b.std().clamp(min=1))
