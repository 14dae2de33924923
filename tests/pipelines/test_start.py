"""Where runs begin: seeds, strengths and the latents' way to pictures and back."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipelines import samplers
from pipelines.errors import BadRequest
from pipelines.start import Task, _later_timesteps
from tests.pipelines import tiny
from tests.pipelines.shots import Shot, ours, photo


@pytest.fixture(scope="module")
def pipe() -> Any:
    return tiny.sd()


def test_a_seed_means_the_same_noise_wherever_it_stands(pipe: Any) -> None:
    together = pipe.begin(Task(4, 32, 48, (7, 8, 7))).latents
    assert together.shape == (3, 4, 16, 24) and together.dtype == torch.float32
    assert torch.equal(together[0], together[2])
    assert torch.equal(together[1:2], pipe.begin(Task(4, 32, 48, (8,))).latents)
    want = torch.randn(1, 4, 16, 24, generator=torch.Generator("cpu").manual_seed(7))
    assert torch.equal(together[:1], want * pipe.scheduler.init_noise_sigma)


@given(st.sampled_from(samplers.NAMES), st.integers(1, 200), st.floats(0.001, 1))
def test_strength_walks_its_share_of_the_schedule(name: str, steps: int, strength: float) -> None:
    scheduler = samplers.scheduler(name, "Automatic", CONFIG)
    scheduler.set_timesteps(min(steps, 50) if name == "LCM" else steps)
    steps = min(steps, 50) if name == "LCM" else steps
    task = Task(steps, 32, 32, (1,), strength=strength)
    if int(steps * strength) >= 1:
        timesteps = _later_timesteps(scheduler, task)
        assert len(scheduler.timesteps) - len(timesteps) == (steps - int(steps * strength)) * scheduler.order
        assert torch.equal(timesteps, scheduler.timesteps[-len(timesteps) :])
        return
    with pytest.raises(BadRequest, match=f"Strength {strength:g} at {steps} steps") as caught:
        _later_timesteps(scheduler, task)
    advised = float(re.findall(r"to ([0-9.]+) or more", str(caught.value))[0])
    assert len(_later_timesteps(scheduler, Task(steps, 32, 32, (1,), strength=advised))) >= 1, "the advice works"


def test_a_strength_without_steps_is_refused_before_anything_is_encoded(pipe: Any) -> None:
    with pytest.raises(BadRequest, match=r"Strength 0.2 at 4 steps leaves no step to run; raise .* 0.25"):
        ours(pipe, Shot(picture=photo(), strength=0.2))


@pytest.mark.parametrize("statistics", [False, True], ids=["scaled", "with mean and deviation"])
def test_latents_and_pictures_are_inverse(statistics: bool) -> None:
    """With a VAE that changes nothing, decoding undoes encoding."""
    pipe = tiny.sd()
    if statistics:
        pipe.vae.register_to_config(latents_mean=[0.1, -0.2, 0.3], latents_std=[0.5, 1.5, 2.0])
    pixels = torch.rand(2, 3, 8, 8) * 2 - 1

    class Same:
        def __init__(self, x: torch.Tensor) -> None:
            self.latent_dist, self.x = self, x

        def sample(self, generator: torch.Generator) -> torch.Tensor:
            return self.x

    pipe.vae.encode = Same
    pipe.vae.decode = lambda latents, return_dict: (latents,)
    latents = pipe.to_latents(pixels, [torch.Generator(), torch.Generator()])
    assert torch.allclose(pipe.decode(latents), pixels * 0.5 + 0.5, atol=1e-6)


def test_previews_are_pictures(pipe: Any) -> None:
    for build in (tiny.sd, tiny.sdxl):
        preview = build().preview(torch.randn(2, 4, 16, 16))
        assert preview.shape == (2, 3, 16, 16) and 0 <= preview.min() and preview.max() <= 1


CONFIG = tiny.sd().scheduler.config
