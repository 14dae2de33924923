"""The device half of `bases.py`: which device, number type, attention kernels and offload a base gets, and why."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from studio.errors import BadRequest
from studio.settings import Settings

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

# GiB of accelerator memory below which a base is moved in part by part (model) or layer by layer (sequential):
# weights in half precision plus what one picture at the default size needs.
_NEEDS = {"toybox": (0.5, 0.3), "sd15": (4.0, 2.0), "sd2": (4.5, 2.0), "sdxl": (10.0, 5.0)}
_TILING_BELOW = 12.0


@dataclass(frozen=True)
class Plan:
    """Where and how a base runs."""

    device: str
    dtype: torch.dtype
    vae_dtype: torch.dtype
    attention: str  # sdpa or xformers
    offload: str  # none, model or sequential
    tiling: bool
    batch: int  # pictures a call


def plan(settings: Settings, family: str) -> Plan:
    """Decide for one family, and log the decision in a line.

    Raises:
        BadRequest: the asked device is not there, or float16 is asked for on the CPU.
    """
    device = _device(settings.device)
    dtype = _dtype(settings.dtype, device, family)
    attention, reason = _attention(settings.attention, device)
    memory = _memory(device)
    offload = _offload(settings.offload, device, memory, family)
    import torch

    # SDXL's VAE overflows in float16; the others are small enough that exactness costs nothing.
    vae_dtype = torch.float32 if dtype == torch.float16 or device == "cpu" else dtype
    chosen = Plan(
        device=device,
        dtype=dtype,
        vae_dtype=vae_dtype,
        attention=attention,
        offload=offload,
        tiling=memory is not None and memory < _TILING_BELOW and family != "toybox",
        # One picture a call on the CPU is as fast, and makes picture k of a batch equal to its seed alone.
        batch=1 if device == "cpu" else 4,
    )
    log.info("%s on %s, %s, attention %s (%s), offload %s", family, device, dtype, attention, reason, offload)
    return chosen


def place(pipe: Any, plan: Plan) -> None:
    """Bring a pipeline to its device as planned."""
    if pipe.vae.dtype != plan.vae_dtype:
        pipe.vae.to(dtype=plan.vae_dtype)
    if plan.attention == "xformers":
        pipe.enable_xformers_memory_efficient_attention()
    if plan.tiling:
        pipe.vae.enable_tiling()
    if plan.offload == "model":
        pipe.enable_model_cpu_offload(device=plan.device)
    elif plan.offload == "sequential":
        pipe.enable_sequential_cpu_offload(device=plan.device)
    else:
        pipe.to(plan.device)
    pipe.batch = plan.batch


def _device(asked: str) -> str:
    import torch

    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if asked == "auto":
        return next(name for name, there in available.items() if there)
    if not available[asked]:
        there = ", ".join(name for name, present in available.items() if present)
        raise BadRequest(f"The device “{asked}” is not available to this torch build; available: {there}.")
    return asked


def _dtype(asked: str, device: str, family: str) -> torch.dtype:
    import torch

    if device == "cpu":
        if asked == "float16":
            raise BadRequest("float16 on the CPU is slow and inexact; choose float32 or bfloat16.")
        return torch.bfloat16 if asked == "bfloat16" else torch.float32
    if asked == "auto":
        return torch.float32 if family == "toybox" else torch.float16
    chosen: torch.dtype = getattr(torch, asked)
    return chosen


def _attention(asked: str, device: str) -> tuple[str, str]:
    """xformers only where its compiled kernels load: the package also imports, and does nothing, where they do not."""
    if asked == "sdpa":
        return "sdpa", "as asked"
    if device != "cuda":
        return "sdpa", "xformers needs CUDA"
    logging.getLogger("xformers").setLevel(logging.ERROR)
    try:
        from xformers import _cpp_lib
    except ImportError:
        return "sdpa", "xformers is not installed"
    if getattr(_cpp_lib, "_cpp_library_load_exception", None) is not None:
        return "sdpa", "xformers is installed but its kernels do not load with this torch"
    # SDPA is as fast on current cards, so xformers is used when asked for.
    return ("xformers", "as asked") if asked == "xformers" else ("sdpa", "default")


def _memory(device: str) -> float | None:
    """GiB of the accelerator, None on the CPU."""
    import torch

    if device == "cuda":
        return float(torch.cuda.get_device_properties(0).total_memory) / 2**30
    if device == "mps":
        return float(torch.mps.recommended_max_memory()) / 2**30
    return None


def _offload(asked: str, device: str, memory: float | None, family: str) -> str:
    if device != "cuda" or memory is None:
        return "none"
    if asked != "auto":
        return asked
    enough, some = _NEEDS[family]
    return "none" if memory >= enough else "model" if memory >= some else "sequential"
