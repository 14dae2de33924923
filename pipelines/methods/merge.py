"""Merge: every adapter acts everywhere at its own weight, as WebUIs do; the baseline of all other methods."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pipelines.adapters import adapted, can_fuse, fused
from pipelines.composer import Composer, Prompts, register
from pipelines.conditioning import Conditioning


@register
class Merge(Composer):
    """All adapters added up everywhere (arXiv 2106.09685, weights W + sum of B A)."""

    name = "merge"
    title = "Merge"

    plan = "none"

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Fused into the weights where the base allows it, beside them where it does not (quantised, offloaded)."""
        if not self.adapters:
            yield
        elif can_fuse(self.pipe, self.adapters):
            self.plan = "fused"
            with fused(self.pipe, self.adapters):
                yield
        else:
            self.plan = "stacked"
            with adapted(self.pipe, self.adapters) as routes:
                routes.everywhere()
                yield

    def condition(self, prompts: Prompts) -> Conditioning:
        """One branch: the joint prompt, with every adapter's trigger."""
        return self.pipe.condition([prompts.joint], prompts)

    def report(self) -> dict[str, Any]:
        """How the adapters were put in."""
        return {"plan": self.plan}
