"""Samplers and schedules by the names people know, as diffusers schedulers.

The tables are plain data, so that the application can list the names without loading torch.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from pipelines.errors import BadRequest, UnknownName

if TYPE_CHECKING:
    from torch import Tensor

# name -> (scheduler class in diffusers, its settings, which schedules it can follow)
_SIGMAS = ("Automatic", "Uniform", "Karras", "Exponential", "SGM Uniform")
_SPACED = ("Automatic", "Uniform", "SGM Uniform")
_SAMPLERS: dict[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
    "DPM++ 2M": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++", "solver_order": 2}, _SIGMAS),
    "DPM++ 2M SDE": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++", "solver_order": 2}, _SIGMAS),
    "Euler": ("EulerDiscreteScheduler", {}, _SIGMAS),
    "Euler a": ("EulerAncestralDiscreteScheduler", {}, _SPACED),
    "DDIM": ("DDIMScheduler", {"clip_sample": False, "set_alpha_to_one": False}, _SPACED),
    "UniPC": ("UniPCMultistepScheduler", {}, _SIGMAS),
    "Heun": ("HeunDiscreteScheduler", {}, _SIGMAS),
    "LCM": ("LCMScheduler", {"clip_sample": False, "set_alpha_to_one": False}, ("Automatic",)),
}
_SCHEDULES: dict[str, dict[str, Any]] = {
    "Automatic": {},
    "Uniform": {"timestep_spacing": "linspace"},
    "Karras": {"use_karras_sigmas": True},
    "Exponential": {"use_exponential_sigmas": True},
    "SGM Uniform": {"timestep_spacing": "trailing"},
}
_OFF = {"use_karras_sigmas": False, "use_exponential_sigmas": False, "use_beta_sigmas": False}

NAMES = tuple(_SAMPLERS)
SCHEDULES = tuple(_SCHEDULES)


def resolve(sampler: str, schedule: str) -> tuple[str, str]:
    """Split older joint names ("DPM++ 2M Karras") and check that the two go together.

    Raises:
        UnknownName: no such sampler or schedule.
        BadRequest: the sampler cannot follow that schedule; lists those it can.
    """
    if sampler not in _SAMPLERS:
        joint = {f"{name} {suffix}": (name, suffix) for name in _SAMPLERS for suffix in _SCHEDULES}
        if sampler not in joint:
            raise UnknownName("sampler", sampler, _SAMPLERS)
        sampler, schedule = joint[sampler]
    if schedule not in _SCHEDULES:
        raise UnknownName("schedule", schedule, _SCHEDULES)
    allowed = _SAMPLERS[sampler][2]
    if schedule not in allowed:
        raise BadRequest(f"{sampler} cannot follow the {schedule} schedule; choose one of: {', '.join(allowed)}.")
    return sampler, schedule


def kept_steps(steps: int, strength: float) -> int:
    """How many of the steps img2img runs at this strength, as diffusers counts them.

    Raises:
        BadRequest: none is left.
    """
    kept = min(int(steps * strength), steps)
    if kept < 1:
        raise BadRequest(
            f"Strength {strength:g} at {steps} steps leaves no step to run; "
            f"raise the strength to {math.ceil(100 / steps) / 100:.2f} or more, or use more steps."
        )
    return kept


def scheduler(sampler: str, schedule: str, base_config: Any) -> Any:
    """A fresh diffusers scheduler with the base's noise schedule and prediction type."""
    import diffusers

    sampler, schedule = resolve(sampler, schedule)
    class_name, settings, _ = _SAMPLERS[sampler]
    cls = getattr(diffusers, class_name)
    known = cls._get_init_keys(cls)
    # What the base's own file leaves open is the default of its scheduler's class, not the base's choice.
    open_ = base_config.get("_use_default_values", ())
    config = {name: value for name, value in base_config.items() if name in known and name not in open_}
    config |= {name: value for name, value in _OFF.items() if name in known}
    return cls.from_config({**config, **settings, **_SCHEDULES[schedule]})


def estimate(scheduler: Any, output: Any) -> Tensor | None:
    """The finished latents as this step guesses them, where the scheduler knows; for previews."""
    guess: Tensor | None = getattr(output, "pred_original_sample", None)
    if guess is None:
        guess = getattr(output, "denoised", None)
    if guess is None:
        # The multistep solvers keep converted outputs, which are x0 under their default data prediction.
        history = getattr(scheduler, "model_outputs", None)
        guess = history[-1] if history else None
    return guess
