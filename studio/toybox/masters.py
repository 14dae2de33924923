"""Float32 master weights, their optimiser state and their moving average, for a model that computes in another type."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Masters:
    """One flat float32 vector of all trainable weights, stepped by AdamW and copied back into the working modules.

    Pure bf16 forgets small updates; here bf16 weights are only what forward and backward compute with.
    """

    def __init__(self, modules: Sequence[nn.Module], clip: float, ema: float) -> None:
        self.parameters = [p for m in modules for p in m.parameters() if p.requires_grad]
        self.clip, self.decay = clip, ema
        flat = torch.cat([p.detach().float().flatten() for p in self.parameters])
        self.weights = nn.Parameter(flat)
        self.average = flat.clone()
        self.optimizer = torch.optim.AdamW([self.weights], lr=0.0, betas=(0.9, 0.99), weight_decay=0.0, fused=True)
        self.steps = 0

    def step(self, rate: float) -> float:
        """Apply the gradients of the working modules and clear them; returns the gradient norm before clipping."""
        grad = torch.cat(
            [torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in self.parameters]
        ).float()
        norm = float(grad.norm())
        self.weights.grad = grad.mul_(min(1.0, self.clip / (norm + 1e-6)))
        self.optimizer.param_groups[0]["lr"] = rate
        self.optimizer.step()
        self.steps += 1
        # A young average follows quickly, else the random start stays in it for a thousand steps.
        self.average.lerp_(self.weights.detach(), 1.0 - min(self.decay, (1 + self.steps) / (10 + self.steps)))
        for p in self.parameters:
            p.grad = None
        self.write(self.weights.detach())
        return norm

    def write(self, flat: Tensor) -> None:
        """Copy a flat vector (the masters or their average) into the working modules, casting to their type."""
        pieces = torch.split(flat, [p.numel() for p in self.parameters])
        with torch.no_grad():
            for parameter, piece in zip(self.parameters, pieces, strict=True):
                parameter.copy_(piece.view(parameter.shape))

    def state(self) -> dict[str, Tensor]:
        """Everything needed to go on exactly: weights, average, both moments, step count."""
        moments = self.optimizer.state.get(self.weights, {})
        zero = torch.zeros_like(self.average)
        return {
            "weights": self.weights.detach(),
            "average": self.average,
            "first": moments.get("exp_avg", zero),
            "second": moments.get("exp_avg_sq", zero),
            "steps": torch.tensor(self.steps),
        }

    def load(self, state: dict[str, Tensor]) -> None:
        """Continue from `state()`; the modules must be those it came from."""
        self.steps = int(state["steps"])
        with torch.no_grad():
            self.weights.copy_(state["weights"])
        self.average.copy_(state["average"])
        self.optimizer.state[self.weights] = {
            "step": torch.tensor(float(self.steps)),
            "exp_avg": state["first"].clone(),
            "exp_avg_sq": state["second"].clone(),
        }
        self.write(self.weights.detach())
