"""Training continues bit for bit, and its parts do what the recipe says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor, nn

from studio.errors import BadFile
from studio.toybox.base import BaseStage, diet, eaten, make_scheduler
from studio.toybox.export import CARD, export, make_base_stage, make_codec, weights_version
from studio.toybox.loop import Stage, checkpoint_path, read_checkpoint, step_generator, train, write_checkpoint
from studio.toybox.masters import Masters
from studio.toybox.pictures import scene_batch
from studio.toybox.recipe import StageRecipe, tiny
from studio.toybox.text import TextStage
from studio.toybox.vae import PolishStage, VaeStage, fold_statistics
from studio.toybox.world import KINDS, scene


def run(stage: Stage, folder: Path, stop: int = 1000) -> dict[str, Tensor]:
    for _ in train(stage, folder, 0, lambda step: step >= stop, threads=1):
        pass
    return read_checkpoint(checkpoint_path(folder, stage.name))[0]


def make(name: str, folder: Path) -> Stage:
    if name == "base":
        return make_base_stage(tiny(), folder, torch.bfloat16)
    if name == "polish":
        return PolishStage(tiny(), make_codec(tiny(), folder), torch.bfloat16)
    return VaeStage(tiny(), torch.bfloat16) if name == "vae" else TextStage(tiny())


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which codec and lesson are done."""
    folder = tmp_path_factory.mktemp("toybox")
    run(make("vae", folder), folder)
    run(make("text", folder), folder)
    return folder


@pytest.mark.parametrize("name", ["vae", "text", "base", "polish"])
def test_six_steps_equal_three_a_checkpoint_and_three(name: str, tmp_path: Path, earlier: Path) -> None:
    folders = tmp_path / "whole", tmp_path / "parts"
    for folder in folders:
        folder.mkdir()
        for done in ("vae", "text"):
            if name in ("base", "polish"):
                checkpoint_path(folder, done).write_bytes(checkpoint_path(earlier, done).read_bytes())
    whole = run(make(name, folders[0]), folders[0])
    half = run(make(name, folders[1]), folders[1], stop=3)
    parts = run(make(name, folders[1]), folders[1])
    assert int(half["steps"]) == 3 and int(parts["steps"]) == 6
    assert not torch.equal(half["weights"], parts["weights"])
    for key, value in whole.items():
        assert torch.equal(value, parts[key]), key


def test_a_step_is_adam_on_float32_masters_and_the_model_follows() -> None:
    torch.manual_seed(0)
    model, mirror = nn.Linear(5, 3).bfloat16(), nn.Linear(5, 3)
    mirror.load_state_dict(model.state_dict())
    masters = Masters([model], clip=1e9, ema=0.0)
    adam = torch.optim.AdamW(mirror.parameters(), lr=1e-2, betas=(0.9, 0.99), weight_decay=0.0)
    for _ in range(4):
        for parameter, twin in zip(model.parameters(), mirror.parameters(), strict=True):
            parameter.grad = torch.randn(parameter.shape).bfloat16()
            twin.grad = parameter.grad.float()
        masters.step(1e-2)
        adam.step()
    flat = torch.cat([p.detach().flatten() for p in mirror.parameters()])
    torch.testing.assert_close(masters.weights.detach(), flat)
    assert torch.equal(model.weight, flat[:15].view(3, 5).bfloat16())


def test_gradients_are_clipped_to_their_norm() -> None:
    layer = nn.Linear(2, 1, bias=False)
    masters = Masters([layer], clip=1.0, ema=0.0)
    layer.weight.grad = torch.tensor([[30.0, 40.0]])
    assert masters.step(0.0) == pytest.approx(50.0)
    assert masters.weights.grad is not None and float(masters.weights.grad.norm()) == pytest.approx(1.0)


def test_the_rate_rises_holds_and_falls_to_a_twentieth() -> None:
    recipe = StageRecipe(steps=1000, batch=1, lr=1.0, warmup=100, decay=0.4)
    rates = [recipe.rate(k) for k in range(1000)]
    assert rates[0] == pytest.approx(0.01) and rates[99:600] == [1.0] * 501
    assert rates[999] == pytest.approx(0.05 + 0.95 / 400)
    assert all(a >= b for a, b in zip(rates[99:], rates[100:], strict=False))


def test_an_interrupted_write_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.safetensors"
    write_checkpoint(path, {"a": torch.ones(2)}, {"stage": "x"})

    def fail(_: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_checkpoint(path, {"a": torch.zeros(2)}, {"stage": "x"})
    assert torch.equal(read_checkpoint(path)[0]["a"], torch.ones(2))


def test_folding_gives_unit_latents_and_the_same_pictures() -> None:
    vae = VaeStage(tiny(), torch.float32).vae.eval()
    with torch.no_grad():
        vae.encoder.conv_out.weight.mul_(5).add_(0.01)
        batch = scene_batch([scene(k, KINDS[k % 4]) for k in range(24)])
        before = vae.decode(vae.encode(batch).latent_dist.mean).sample
        fold_statistics(vae, 0, count=64)
        posterior = vae.encode(batch).latent_dist
        after = vae.decode(posterior.mean).sample
    torch.testing.assert_close(after, before, atol=1e-3, rtol=1e-3)
    assert posterior.mean.mean((0, 2, 3)).abs().max() < 0.3
    assert (posterior.mean.std((0, 2, 3)) - 1).abs().max() < 0.3
    assert float(posterior.std.max()) < 0.06, "encoding hardly adds noise"


def test_a_batch_of_the_base_is_a_function_of_its_step(earlier: Path) -> None:
    stage = make_base_stage(tiny(), earlier, torch.float32)
    losses = [stage.loss(step, step_generator(0, "base", step))[0].item() for step in (5, 2, 5)]
    assert losses[0] == losses[2] != losses[1]


def test_a_perfect_denoiser_has_no_loss(earlier: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = make_base_stage(tiny(), earlier, torch.float32)
    clean = torch.stack([stage.shards.latents("one", k) for k in range(4)]).float()
    monkeypatch.setattr(stage, "_batch", lambda step, rng: (clean, [""] * 4))
    signal = make_scheduler().alphas_cumprod

    class Perfect(nn.Module):
        device, dtype = torch.device("cpu"), torch.float32

        def forward(self, noisy: Tensor, t: Tensor, states: Tensor) -> object:
            keep = signal[t].view(-1, 1, 1, 1)
            noise = (noisy - keep.sqrt() * clean) / (1 - keep).sqrt()
            self.sample = keep.sqrt() * noise - (1 - keep).sqrt() * clean
            return self

    monkeypatch.setattr(stage, "unet", Perfect())
    assert stage.loss(0, step_generator(0, "base", 0))[0].item() < 1e-6


def test_the_export_is_the_average_and_replaces_the_old_one(earlier: Path, tmp_path: Path) -> None:
    folder, target = tmp_path / "training", tmp_path / "base"
    folder.mkdir()
    for done in ("vae", "text"):
        checkpoint_path(folder, done).write_bytes(checkpoint_path(earlier, done).read_bytes())
    state = run(make("base", folder), folder)
    target.mkdir()
    (target / "old.txt").write_text("left over")
    version = export(tiny(), folder, target)
    pipe = StableDiffusionPipeline.from_pretrained(target, use_safetensors=True)
    flat = torch.cat([p.detach().flatten() for m in (pipe.unet, pipe.text_encoder) for p in m.parameters()])
    assert torch.equal(flat, state["average"].half().float())
    assert not torch.equal(state["average"], state["weights"])
    assert version == weights_version(target) == json.loads((target / CARD).read_text())["version"]
    assert not (target / "old.txt").exists() and not (tmp_path / "base.part").exists()
    assert str(tmp_path) not in "".join(p.read_text() for p in target.rglob("*.json"))


def test_a_stage_that_needs_an_earlier_one_says_so(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="studio.toybox text"):
        make("base", tmp_path)


def test_one_object_comes_before_three() -> None:
    recipe = StageRecipe(steps=100, batch=64, lr=1.0)
    assert all(sum(diet(step, recipe).values()) == 64 for step in range(100))
    assert diet(0, recipe)["one"] > 50 and "three" not in diet(0, recipe)
    assert diet(90, recipe)["three"] > 0 and diet(90, recipe)["two"] > diet(0, recipe)["two"]


def test_polishing_changes_pictures_but_not_latents(earlier: Path, tmp_path: Path) -> None:
    for done in ("vae", "text"):
        checkpoint_path(tmp_path, done).write_bytes(checkpoint_path(earlier, done).read_bytes())
    batch = scene_batch([scene(3)])
    before = make_codec(tiny(), tmp_path)
    run(make("polish", tmp_path), tmp_path)
    after = make_codec(tiny(), tmp_path)
    with torch.no_grad():
        latents = before.encode(batch).latent_dist.mean
        assert torch.equal(latents, after.encode(batch).latent_dist.mean)
        assert not torch.equal(before.decode(latents).sample, after.decode(latents).sample)


@pytest.mark.parametrize("kind", KINDS)
def test_scenes_eaten_are_the_sum_of_all_batches(kind: str) -> None:
    recipe = StageRecipe(steps=50, batch=32, lr=1.0)
    for step in (0, 1, 15, 16, 29, 31, 50):
        assert eaten(kind, step, recipe) == sum(diet(k, recipe).get(kind, 0) for k in range(step))


def test_the_base_learns_both_networks(earlier: Path) -> None:
    stage = make_base_stage(tiny(), earlier, torch.float32)
    assert isinstance(stage, BaseStage)
    stage.loss(1, step_generator(0, "base", 1))[0].backward()  # type: ignore[no-untyped-call]
    for module in stage.modules:
        assert any(p.grad is not None and bool(p.grad.any()) for p in module.parameters())
    assert all(p.grad is None for p in stage.shards.vae.parameters())
