"""Sampler names, schedules and what a base's own scheduler leaves open."""

from __future__ import annotations

import diffusers
import pytest
import torch

from pipelines import samplers
from pipelines.errors import BadRequest, UnknownName

BASE = diffusers.PNDMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1)
PAIRS = [
    (name, schedule)
    for name in samplers.NAMES
    for schedule in samplers.SCHEDULES
    if schedule in samplers._SAMPLERS[name][2]
]


@pytest.mark.parametrize(("name", "schedule"), PAIRS)
def test_every_pair_runs_with_the_bases_noise(name: str, schedule: str) -> None:
    scheduler = samplers.scheduler(name, schedule, BASE.config)
    assert torch.equal(scheduler.betas, BASE.betas)
    scheduler.set_timesteps(5)
    latents = torch.ones(1, 4, 4, 4)
    for t in scheduler.timesteps:
        scaled = scheduler.scale_model_input(latents, t)
        latents = scheduler.step(torch.zeros_like(scaled), t, latents).prev_sample
    assert latents.isfinite().all()


@pytest.mark.parametrize(("name", "schedule"), [pair for pair in PAIRS if pair[1] != "Automatic"])
def test_joint_names(name: str, schedule: str) -> None:
    assert samplers.resolve(f"{name} {schedule}", "Automatic") == (name, schedule)


def test_a_bases_karras_setting_does_not_leak_into_other_schedules() -> None:
    base = diffusers.EulerDiscreteScheduler(use_karras_sigmas=True)
    assert samplers.scheduler("Euler", "Automatic", base.config).config.use_karras_sigmas is False
    assert samplers.scheduler("DPM++ 2M Karras", "Automatic", base.config).config.use_karras_sigmas is True


def test_what_the_base_leaves_open_is_the_samplers_default() -> None:
    assert samplers.scheduler("DPM++ 2M", "Automatic", BASE.config).config.timestep_spacing == "linspace"
    stated = diffusers.PNDMScheduler(timestep_spacing="trailing", prediction_type="v_prediction")
    config = samplers.scheduler("DPM++ 2M", "Automatic", stated.config).config
    assert (config.timestep_spacing, config.prediction_type) == ("trailing", "v_prediction")


def test_refusals_name_the_choices() -> None:
    with pytest.raises(UnknownName, match=r"“Eular”; choose one of: Euler"):
        samplers.resolve("Eular", "Automatic")
    with pytest.raises(UnknownName, match="“Karas”.*Karras"):
        samplers.resolve("Euler", "Karas")
    with pytest.raises(
        BadRequest, match="Euler a cannot follow the Karras schedule; choose one of: Automatic, Uniform"
    ):
        samplers.resolve("Euler a", "Karras")
