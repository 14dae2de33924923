"""Adapted layers against peft, and the ways of putting adapters in against each other."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn

from pipelines.adapters import AdaptedLayer, Adapter, adapted, can_fuse, fused
from pipelines.deltas import LowRank
from pipelines.routing import Routing
from tests.pipelines import tiny

LAYERS = {
    "linear": (lambda: nn.Linear(6, 9), (4, 6)),
    "linear over tokens": (lambda: nn.Linear(6, 9, bias=False), (4, 7, 6)),
    "1x1 convolution": (lambda: nn.Conv2d(6, 9, 1), (4, 6, 5, 7)),
    "strided 3x3 convolution": (lambda: nn.Conv2d(6, 9, 3, stride=2, padding=1), (4, 6, 5, 7)),
}


def beside_peft(build: Any, names: list[str]) -> tuple[Any, nn.Module, dict[int, nn.Module]]:
    """peft's layer with random adapters, the plain layer, and the same adapters as our deltas."""
    torch.manual_seed(0)
    holder = nn.Sequential(build()).requires_grad_(False)
    plain = holder[0]
    deltas: dict[int, nn.Module] = {}
    for column, name in enumerate(names):
        config = LoraConfig(r=column + 1, lora_alpha=1.5, target_modules=["0"], init_lora_weights=False)
        inject_adapter_in_model(config, holder, name)
        layer = holder[0]
        down, up = layer.lora_A[name].weight.detach(), layer.lora_B[name].weight.detach()
        deltas[column] = LowRank(down, up, layer.scaling[name])
    return holder[0].eval(), plain, deltas


@pytest.mark.parametrize(("build", "shape"), LAYERS.values(), ids=LAYERS.keys())
class TestOneLayer:
    def test_equals_peft(self, build: Any, shape: tuple[int, ...]) -> None:
        names = ["a", "b", "c"]
        reference, plain, deltas = beside_peft(build, names)
        routing = Routing(3)
        layer = AdaptedLayer(plain, deltas, routing, None)
        x = torch.randn(shape)
        reference.set_adapter(names)
        for weights in ([1.0, 1.0, 1.0], [0.5, -1.0, 2.0]):
            for name, weight in zip(names, weights, strict=True):
                reference.set_scale(name, weight)
            routing.set(weights)
            assert (layer(x) - reference(x)).abs().max() <= 1e-6

    def test_four_rows_with_four_adapters_equal_four_calls(self, build: Any, shape: tuple[int, ...]) -> None:
        names = ["a", "b", "c", "d"]
        reference, plain, deltas = beside_peft(build, names)
        routing = Routing(4)
        routing.set(torch.eye(4))
        x = torch.randn(shape)
        got = AdaptedLayer(plain, deltas, routing, None)(x)
        for row, name in enumerate(names):
            reference.set_adapter([name])
            assert (got[row : row + 1] - reference(x[row : row + 1])).abs().max() <= 1e-6

    def test_trained_deltas_get_the_gradients_of_peft(self, build: Any, shape: tuple[int, ...]) -> None:
        reference, plain, deltas = beside_peft(build, ["a", "b"])
        for delta in deltas.values():
            delta.requires_grad_(True)
        routing = Routing(2)
        routing.set([1.0, 1.0])
        x = torch.randn(shape)
        reference.set_adapter(["a", "b"])
        AdaptedLayer(plain, deltas, routing, None)(x).square().mean().backward()
        reference(x).square().mean().backward()
        for delta, name in zip(deltas.values(), ["a", "b"], strict=True):
            assert isinstance(delta, LowRank)
            for ours, theirs in ((delta.down, reference.lora_A[name]), (delta.up, reference.lora_B[name])):
                assert ours.grad is not None and ours.grad.abs().max() > 0
                assert torch.allclose(ours.grad, theirs.weight.grad, atol=1e-6)

    def test_gradients_reach_the_input(self, build: Any, shape: tuple[int, ...]) -> None:
        _, plain, deltas = beside_peft(build, ["a", "b"])
        grads = []
        for table in ([[1.0, 0.5]] * 4, [[1.0, 0.5]], [[1.0, 0.5], [1.0, 0.5], [1.0, 0.5], [1.0, 0.5000001]]):
            routing = Routing(2)
            routing.set(torch.tensor(table))
            x = torch.ones(shape, requires_grad=True)
            AdaptedLayer(plain, deltas, routing, None)(x).square().sum().backward()
            grads.append(x.grad)
        assert all(torch.allclose(grads[0], grad, atol=1e-4) for grad in grads[1:])

    def test_a_step_of_training_is_seen_at_once(self, build: Any, shape: tuple[int, ...]) -> None:
        _, plain, deltas = beside_peft(build, ["a"])
        delta = deltas[0].requires_grad_(True)
        routing = Routing(1)
        routing.set([1.0])
        layer, x = AdaptedLayer(plain, deltas, routing, None), torch.randn(shape)
        with torch.no_grad():
            before = layer(x) - plain(x)
            assert isinstance(delta, LowRank)
            delta.up.mul_(2)
            assert torch.allclose(layer(x) - plain(x), 2 * before, atol=1e-5)


def test_a_half_mask_blends_in_space() -> None:
    """On a 1x1 convolution, which mixes no positions, masked = adapted inside and base outside."""
    _, plain, deltas = beside_peft(lambda: nn.Conv2d(6, 9, 1), ["a"])
    routing = Routing(1)
    layer, x = AdaptedLayer(plain, deltas, routing, 0), torch.randn(2, 6, 4, 6)
    routing.set([1.0])
    full, without = layer(x), plain(x)
    mask = torch.zeros(1, 1, 32, 48)
    mask[..., :24] = 1
    routing.set([1.0], mask, [0, 0], (4, 6))
    got = layer(x)
    assert torch.allclose(got[..., :3], full[..., :3], atol=1e-6)
    assert torch.equal(got[..., 3:], without[..., 3:])


# ---- whole U-Nets --------------------------------------------------------------------------------------------------

EVERYWHERE = ("",)
BUILD = pytest.mark.parametrize("build", [tiny.sd, tiny.sdxl])


@torch.no_grad()
def predict(pipe: Any, rows: int = 4, size: tuple[int, int] = (16, 16), index: list[int] | None = None) -> Tensor:
    """The U-Net's answer to fixed random rows (only those of `index`)."""
    generator = torch.Generator().manual_seed(7)
    width = pipe.unet.config.cross_attention_dim
    x = torch.randn(rows, 4, *size, generator=generator)
    text = torch.randn(rows, tiny.TOKENS, width, generator=generator)
    chosen = list(range(rows)) if index is None else index
    extras = {"text_embeds": torch.ones(len(chosen), 16), "time_ids": torch.ones(len(chosen), 6)}
    added = {"added_cond_kwargs": extras} if pipe.family == "sdxl" else {}
    out: Tensor = pipe.unet(x[chosen], 301, text[chosen], return_dict=False, **added)[0]
    return out


def three(pipe: Any) -> list[Adapter]:
    """Three adapters on every layer, convolutions, projections and embeddings included; weights apart."""
    return [tiny.adapter(pipe, k, 2 + k, EVERYWHERE, weight=w) for k, w in enumerate((1.0, 0.5, -0.7))]


@BUILD
@pytest.mark.parametrize("size", [(16, 16), (13, 9)], ids=["even", "odd"])
def test_the_plans_agree(build: Any, size: tuple[int, int]) -> None:
    pipe = build()
    adapters = three(pipe)
    assert len(adapters[0].deltas) == sum(path.startswith("unet.") for path in pipe.layers())
    without = predict(pipe, size=size)
    with fused(pipe, adapters):
        want = predict(pipe, size=size)
    with adapted(pipe, adapters) as routes:
        assert torch.equal(predict(pipe, size=size), without)
        routes.everywhere()
        stacked = predict(pipe, size=size)
        # The same weights row by row, with the sums split over groups.
        weights = torch.tensor([adapter.weight for adapter in adapters])
        routes.denoiser.set(weights.repeat(4, 1), torch.ones(1, 3, 8, 8), [0] * 4, size)
        masked = predict(pipe, size=size)
    scale = want.std()
    assert (want - without).abs().max() / scale > 0.1
    assert (stacked - want).abs().max() / scale <= 1e-5
    assert (masked - stacked).abs().max() / scale <= 1e-5


@BUILD
def test_every_row_has_its_own_adapters(build: Any) -> None:
    pipe = build()
    adapters = three(pipe)
    sets = ((), (0,), (1, 2), (0,))
    table = torch.tensor([[a.weight if k in chosen else 0.0 for k, a in enumerate(adapters)] for chosen in sets])
    with adapted(pipe, adapters) as routes:
        routes.denoiser.set(table)
        grouped = predict(pipe)
        with routes.denoiser.narrow([3, 1]):
            narrowed = predict(pipe, index=[3, 1])
        routes.only(1)
        alone = predict(pipe)
        routes.only(None)
        nobody = predict(pipe)
    assert torch.equal(nobody, predict(pipe))
    for row, chosen in enumerate(sets):
        with fused(pipe, [adapters[k] for k in chosen]):
            want = predict(pipe, index=[row])
        assert (grouped[row : row + 1] - want).abs().max() / want.std() <= 1e-5
    assert (narrowed - grouped[[3, 1]]).abs().max() <= 1e-5 * grouped.std()
    with fused(pipe, adapters[1:2]):
        assert (alone - predict(pipe)).abs().max() <= 1e-5 * alone.std()


def test_text_encoders_are_adapted_by_the_text_weight() -> None:
    pipe = tiny.sdxl()
    adapters = [tiny.adapter(pipe, k, 2, ("q_proj", "fc1"), weight=0.0, text_weight=0.5 + k) for k in range(2)]
    assert {path.partition(".")[0] for path in adapters[0].deltas} == {"text_encoder", "text_encoder_2"}
    with torch.no_grad():
        plain = pipe.embed("a cat", None).text
        with fused(pipe, adapters):
            want = pipe.embed("a cat", None).text
        with adapted(pipe, adapters) as routes:
            routes.everywhere()
            got = pipe.embed("a cat", None).text
    for name in ("embeds", "pooled"):
        assert (want[name] - plain[name]).abs().max() > 1e-2
        assert torch.allclose(got[name], want[name], atol=1e-5)


def test_deltas_take_the_models_type_and_the_callers_stay() -> None:
    pipe = tiny.sd()
    pipe.unet.to(torch.bfloat16)
    (adapter,) = adapters = [tiny.adapter(pipe, 0)]
    x = torch.randn(1, 4, 16, 16, dtype=torch.bfloat16)
    text = torch.randn(1, tiny.TOKENS, 12, dtype=torch.bfloat16)
    with torch.no_grad(), adapted(pipe, adapters) as routes:
        before = pipe.unet(x, 1, text).sample
        routes.everywhere()
        after = pipe.unet(x, 1, text).sample
    assert after.dtype == torch.bfloat16 and not torch.equal(before, after)
    assert all(tensor.dtype == torch.float32 for delta in adapter.deltas.values() for tensor in delta.parameters())


def test_fusing_is_refused_where_weights_cannot_be_written() -> None:
    pipe = tiny.sd()
    adapters = [tiny.adapter(pipe, 0)]
    assert can_fuse(pipe, adapters)
    target = pipe.layers()[next(iter(adapters[0].deltas))]
    target._hf_hook = object()  # as accelerate marks an offloaded layer
    assert not can_fuse(pipe, adapters)
    del target._hf_hook
    pipe.unet.to("meta")
    assert not can_fuse(pipe, adapters)
