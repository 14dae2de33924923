"""Adapters: which deltas they bring, how layers read them, and how they are put in and taken out.

Two ways to put them in, with equal results (<= 1e-5): `adapted` wraps layers and follows a `Routing` row by row
(grouped or stacked, as the routing's groups say); `fused` writes the sum into the weights for renders in which every
row is alike. Both are context managers that restore the model on exit, error and cancel.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from pipelines.deltas import Delta, Deltas, LowRank, contract, expand
from pipelines.routing import Group, Routing, grid_level

if TYPE_CHECKING:
    from pipelines.base import ComposedPipeline


@dataclass(frozen=True)
class Adapter:
    """One adapter as a render uses it. Delta paths start with the component: 'unet....' or 'text_encoder....'."""

    name: str
    deltas: Deltas
    weight: float = 1.0
    text_weight: float = 1.0
    words: tuple[str, ...] = ()
    trigger: str = ""

    def strength(self, path: str) -> float:
        """The weight with which this adapter acts on a layer when it acts in full."""
        return self.weight if path.startswith("unet.") else self.text_weight


class _Stack(NamedTuple):
    """Low-rank factors of several adapters in one pair of matrices."""

    down: Tensor  # (sum of ranks, in, ...)
    up: Tensor  # (out, sum of ranks, ...), scales folded in
    ranks: tuple[int, ...]


class AdaptedLayer(nn.Module):
    """A layer with deltas beside it. It calls the wrapped module, never its weight, so that quantised and offloaded
    layers keep working."""

    def __init__(self, base: nn.Module, deltas: Mapping[int, nn.Module], routing: Routing, grid: int | None) -> None:
        super().__init__()
        self.base, self.routing, self.grid = base, routing, grid
        self.deltas = dict(deltas)  # a plain dict: these are not the model's own parameters
        self._stacks: dict[tuple[int, ...], _Stack | None] = {}
        self._convolution = isinstance(base, nn.Conv2d)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("base"), name)  # weight, bias, in_features ... for code that looks

    def forward(self, x: Tensor) -> Tensor:
        """`base(x) + sum_k weight_k * mask_k * delta_k(x)` for the rows each adapter acts on."""
        y: Tensor = self.base(x)
        for group in self.routing.groups:
            columns = tuple(column for column in group.columns if column in self.deltas)
            if not columns:
                continue
            if group.rows is None:
                y = y + self._change(x, y, group, columns)
            elif isinstance(group.rows, slice):
                y[group.rows] += self._change(x[group.rows], y[group.rows], group, columns)
            else:
                rows = group.rows.to(y.device)
                y = y.index_add(0, rows, self._change(x[rows], y[rows], group, columns).to(y.dtype))
        return y

    def _change(self, x: Tensor, y: Tensor, group: Group, columns: tuple[int, ...]) -> Tensor:
        if columns not in self._stacks:
            self._stacks[columns] = self._stack(columns)
        stack = self._stacks[columns]
        if stack is None:
            return self._one_by_one(x, y, group, columns)
        hidden = contract(x, stack.down, self.base)  # (g, ..., R)
        coefficient = group.coefficient(columns, stack.ranks, self.grid, hidden, self._convolution)
        if coefficient is not None:
            hidden = hidden * coefficient
        return expand(hidden, stack.up, self.base)

    def _stack(self, columns: tuple[int, ...]) -> _Stack | None:
        """Two matrix products for any number of adapters; None where a delta is trained or not low-rank."""
        parts = _low_rank(self.deltas[column] for column in columns)
        if parts is None or any(part.up.requires_grad or part.down.requires_grad for part in parts):
            return None
        down = torch.cat([part.down.detach() for part in parts])
        up = torch.cat([part.up.detach() * part.scale for part in parts], dim=1)
        return _Stack(down, up, tuple(part.rank for part in parts))

    def _one_by_one(self, x: Tensor, y: Tensor, group: Group, columns: tuple[int, ...]) -> Tensor:
        bias = getattr(self.base, "bias", None)
        y0 = y
        if bias is not None and any(getattr(self.deltas[column], "needs_output", False) for column in columns):
            y0 = y - (bias[:, None, None] if self._convolution else bias)
        total: Tensor | None = None
        for column in columns:
            change = self.deltas[column](x, y0, self.base)
            coefficient = group.coefficient((column,), (1,), self.grid, change, self._convolution)
            change = change if coefficient is None else change * coefficient
            total = change if total is None else total + change
        assert total is not None
        return total


def _low_rank(deltas: Iterable[nn.Module]) -> list[LowRank] | None:
    """The deltas when every one of them is low-rank, else None."""
    given = list(deltas)
    found = [delta for delta in given if isinstance(delta, LowRank)]
    return found if len(found) == len(given) else None


@dataclass
class Routes:
    """The routings of one installation: the denoiser's rows, and the text encoders' (one prompt a call)."""

    denoiser: Routing
    text: Routing
    adapters: tuple[Adapter, ...] = field(default_factory=tuple)

    def everywhere(self) -> None:
        """Every adapter on every row, at its own weight."""
        self.denoiser.set([adapter.weight for adapter in self.adapters])
        self.text.set([adapter.text_weight for adapter in self.adapters])

    def only(self, column: int | None) -> None:
        """One adapter alone on every row (None: the base)."""
        for routing, weights in (
            (self.denoiser, [adapter.weight for adapter in self.adapters]),
            (self.text, [adapter.text_weight for adapter in self.adapters]),
        ):
            routing.set([weight if k == column else 0.0 for k, weight in enumerate(weights)])


@contextmanager
def adapted(pipe: ComposedPipeline, adapters: Sequence[Adapter]) -> Iterator[Routes]:
    """Wrap every layer that some adapter changes; no adapter acts until the routings are set.

    Deltas are brought to the layer's device and the component's type here, once, and stay there.
    """
    layers = pipe.layers()
    routes = Routes(Routing(len(adapters)), Routing(len(adapters)), tuple(adapters))
    levels = len(pipe.unet.config.block_out_channels)
    device = pipe._execution_device
    # Asked once: diffusers answers both by walking every module.
    dtypes = {component: getattr(pipe, component).dtype for component in (pipe.denoiser, *pipe.encoders)}
    with ExitStack() as undo:
        for path in dict.fromkeys(path for adapter in adapters for path in adapter.deltas):
            component, _, inner = path.partition(".")
            root = getattr(pipe, component)
            deltas = {
                column: _placed(adapter.deltas[path], device, dtypes[component])
                for column, adapter in enumerate(adapters)
                if path in adapter.deltas
            }
            routing = routes.denoiser if component == pipe.denoiser else routes.text
            _replace(root, inner, AdaptedLayer(layers[path], deltas, routing, grid_level(path, levels)), undo)
        yield routes


def _placed(delta: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """The delta where the layer is; a copy, unless it is there already or being trained."""
    tensors = [*delta.parameters(), *delta.buffers()]
    there = all(tensor.device == device and tensor.dtype == dtype for tensor in tensors)
    if there or any(tensor.requires_grad for tensor in tensors):
        return delta
    return copy.deepcopy(delta).to(device=device, dtype=dtype)


def _replace(root: nn.Module, path: str, module: nn.Module, undo: ExitStack) -> None:
    parent_path, _, leaf = path.rpartition(".")
    parent = root.get_submodule(parent_path)
    original = parent._modules[leaf]
    module.train(original.training if original is not None else False)
    parent._modules[leaf] = module
    undo.callback(parent._modules.__setitem__, leaf, original)


@contextmanager
def fused(pipe: ComposedPipeline, adapters: Sequence[Adapter]) -> Iterator[None]:
    """Write every adapter, at its own weight, into the layers' weights; the originals come back bit for bit.

    The originals are kept beside the new weights rather than subtracted again, which would not restore float16.
    """
    layers = pipe.layers()
    with ExitStack() as undo:
        for path in dict.fromkeys(path for adapter in adapters for path in adapter.deltas):
            parts = [
                (adapter.deltas[path], adapter.strength(path))
                for adapter in adapters
                if path in adapter.deltas and adapter.strength(path) != 0
            ]
            if not parts:
                continue
            parameter: Tensor = layers[path].weight  # type: ignore[assignment]
            original = parameter.data
            undo.callback(setattr, parameter, "data", original)
            parameter.data = _summed(layers[path], parts)
        yield


@torch.no_grad()  # here and not around the yield, which would leak the mode to whoever drives the render
def _summed(layer: nn.Module, parts: Sequence[tuple[nn.Module, float]]) -> Tensor:
    """`W + sum_k strength_k dW_k`, in float32, returned in the weight's own type and device."""
    weight: Tensor = layer.weight  # type: ignore[assignment]
    total = weight.float()
    low = _low_rank(delta for delta, _ in parts)
    if low is not None:
        # One product for all of them: cat(up) @ cat(down).
        strengths = [strength for _, strength in parts]
        ups = [d.up.to(total).flatten(1) * (d.scale * strength) for d, strength in zip(low, strengths, strict=True)]
        downs = [delta.down.to(total).flatten(1) for delta in low]
        merged = torch.addmm(total.flatten(1), torch.cat(ups, dim=1), torch.cat(downs))
    else:
        merged = total
        for delta, strength in parts:
            assert isinstance(delta, Delta)
            merged = merged + strength * delta.dense(layer).to(total.device)
    return merged.reshape(weight.shape).to(weight.dtype)


def can_fuse(pipe: ComposedPipeline, adapters: Sequence[Adapter]) -> bool:
    """Whether the weights may be written to: plain layers, neither quantised nor offloaded."""
    components = {path.partition(".")[0] for adapter in adapters for path in adapter.deltas}
    if any(hasattr(getattr(pipe, name), "_hf_hook") for name in components):
        return False
    layers = pipe.layers()
    touched = (layers[path] for adapter in adapters for path in adapter.deltas)
    return all(
        type(layer) in (nn.Linear, nn.Conv2d)
        and isinstance(layer.weight, Tensor)
        and layer.weight.is_floating_point()
        and not layer.weight.is_meta
        and not hasattr(layer, "_hf_hook")
        and not hasattr(layer, "_diffusers_hook")
        for layer in touched
    )
