"""Routing: any table of weights gives the row-by-row formula; grids follow from paths."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from pipelines.adapters import AdaptedLayer
from pipelines.deltas import LowRank
from pipelines.routing import Routing, grid_level, grid_size

WIDTH, OUT = 5, 6
LAYER = nn.Linear(WIDTH, OUT).requires_grad_(False)
TABLES = st.integers(1, 6).flatmap(
    lambda rows: st.integers(1, 4).flatmap(
        lambda columns: st.lists(
            st.lists(st.sampled_from([0.0, 1.0, 0.5, -0.75]), min_size=columns, max_size=columns),
            min_size=rows,
            max_size=rows,
        )
    )
)


def random_deltas(count: int, missing: int | None = None) -> dict[int, LowRank]:
    generator = torch.Generator().manual_seed(count)
    return {
        k: LowRank(torch.randn(k + 1, WIDTH, generator=generator), torch.randn(OUT, k + 1, generator=generator), 0.5)
        for k in range(count)
        if k != missing
    }


def naive(x: Tensor, weights: Tensor, deltas: dict[int, LowRank]) -> Tensor:
    """`y = base(x) + sum_k w_k dW_k x`, one row at a time, with dense changes."""
    rows = []
    for row, weight in zip(x, weights, strict=True):
        y = LAYER(row)
        for k, delta in deltas.items():
            y = y + weight[k] * row @ delta.dense(LAYER).T
        rows.append(y)
    return torch.stack(rows)


@given(TABLES, st.booleans())
def test_any_table_equals_the_formula(table: list[list[float]], one_layer_less: bool) -> None:
    weights = torch.tensor(table)
    deltas = random_deltas(weights.shape[1], missing=0 if one_layer_less else None)
    routing = Routing(weights.shape[1])
    layer = AdaptedLayer(LAYER, deltas, routing, None)
    x = torch.randn(len(table), 3, WIDTH, generator=torch.Generator().manual_seed(1))
    assert torch.equal(layer(x), LAYER(x)), "until a routing is set, no adapter acts"
    routing.set(weights)
    assert torch.allclose(layer(x), naive(x, weights, deltas), atol=1e-5)
    routing.clear()
    assert torch.equal(layer(x), LAYER(x))


@given(TABLES, st.data())
def test_narrow_sees_the_chosen_rows(table: list[list[float]], data: st.DataObject) -> None:
    index = data.draw(st.lists(st.integers(0, len(table) - 1), min_size=1, max_size=6))
    weights = torch.tensor(table)
    deltas, routing = random_deltas(weights.shape[1]), Routing(weights.shape[1])
    layer = AdaptedLayer(LAYER, deltas, routing, None)
    routing.set(weights)
    x = torch.randn(len(table), WIDTH, generator=torch.Generator().manual_seed(2))
    full = layer(x)
    with routing.narrow(index):
        assert torch.allclose(layer(x[index]), full[index], atol=1e-5)
    assert torch.equal(layer(x), full)


@given(TABLES)
def test_groups_are_as_few_as_the_sets_of_adapters(table: list[list[float]]) -> None:
    routing = Routing(len(table[0]))
    routing.set(torch.tensor(table))
    acting = {tuple(k for k, weight in enumerate(row) if weight) for row in table} - {()}
    assert {group.columns for group in routing.groups} == acting
    assert len(routing.groups) == len(acting)


def test_one_weight_an_adapter_holds_for_any_number_of_rows() -> None:
    deltas, routing = random_deltas(2), Routing(2)
    layer = AdaptedLayer(LAYER, deltas, routing, None)
    routing.set([1.0, -0.5])
    for rows in (1, 2, 5):
        x = torch.randn(rows, WIDTH)
        assert torch.allclose(layer(x), naive(x, torch.tensor([[1.0, -0.5]] * rows), deltas), atol=1e-5)


@given(st.integers(1, 3), st.integers(1, 3), st.integers(3, 9), st.integers(3, 9), st.integers(0, 2))
def test_masks_weigh_every_position(images: int, adapters: int, height: int, width: int, level: int) -> None:
    generator = torch.Generator().manual_seed(height * 10 + width)
    h, w = grid_size((height, width), level)
    masks = torch.rand(images, adapters, h, w, generator=generator)
    rows = [*range(images), *range(images)]  # two halves, as in guided sampling
    deltas, routing = random_deltas(adapters), Routing(adapters)
    routing.set(torch.full((adapters,), 0.8), masks, rows, (height, width))
    x = torch.randn(len(rows), h * w, WIDTH, generator=generator)
    # Each position is a row of its own with the mask's weight there.
    flat = masks[rows].flatten(2).transpose(1, 2).flatten(0, 1) * 0.8
    want = naive(x.flatten(0, 1), flat, deltas).unflatten(0, (len(rows), -1))
    assert torch.allclose(AdaptedLayer(LAYER, deltas, routing, level)(x), want, atol=1e-5)
    # A layer without positions takes the mask's mean.
    mean = naive(x.flatten(0, 1), (masks[rows].mean((2, 3)) * 0.8).repeat_interleave(h * w, 0), deltas)
    got = AdaptedLayer(LAYER, deltas, routing, None)(x)
    assert torch.allclose(got, mean.unflatten(0, (len(rows), -1)), atol=1e-5)


def test_a_mask_may_come_in_any_resolution() -> None:
    coarse = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]])
    routing, deltas = Routing(1), random_deltas(1)
    layer = AdaptedLayer(LAYER, deltas, routing, 0)
    x = torch.randn(1, 16, WIDTH)
    routing.set([1.0], coarse, [0], (4, 4))
    want = layer(x)
    routing.set([1.0], F.interpolate(coarse, size=(32, 32)), [0], (4, 4))
    assert torch.allclose(layer(x), want, atol=1e-6)


def unet(attentive: tuple[bool, ...], depth: int | tuple[int, ...]) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        block_out_channels=tuple(8 * (i + 1) for i in range(len(attentive))), norm_num_groups=4, layers_per_block=1,
        cross_attention_dim=6, attention_head_dim=4, transformer_layers_per_block=depth,
        down_block_types=tuple("CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attentive),
        up_block_types=tuple("CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attentive)),
        use_linear_projection=len(attentive) == 3,
    ).eval()  # fmt: skip


@pytest.mark.parametrize("size", [(16, 16), (13, 9), (8, 15), (7, 5)])
@pytest.mark.parametrize(
    "model",
    [unet((True, True, True, False), 1), unet((False, True, True), (1, 1, 2))],
    ids=["SD 1.5: four levels", "SDXL: three levels"],
)
def test_a_layers_grid_follows_from_its_path(model: UNet2DConditionModel, size: tuple[int, int]) -> None:
    levels = len(model.config.block_out_channels)
    tokens, seen = 77, 0

    def check(path: str, output: Tensor) -> None:
        nonlocal seen
        level = grid_level(f"unet.{path}", levels)
        seen += 1
        if level is None:
            assert output.dim() == 2 or output.shape[1] == tokens, path
        elif output.dim() == 4:
            assert tuple(output.shape[2:]) == grid_size(size, level), path
        else:
            h, w = grid_size(size, level)
            assert output.shape[1] == h * w, path

    hooks = [
        module.register_forward_hook(lambda _module, _inputs, output, path=path: check(path, output))
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    ]
    try:
        with torch.no_grad():
            model(torch.randn(1, 4, *size), torch.tensor(5), torch.randn(1, tokens, 6))
    finally:
        for hook in hooks:
            hook.remove()
    assert seen == len(hooks)


def test_text_encoders_have_no_grid() -> None:
    paths: list[Any] = ["text_encoder.encoder.layers.0.self_attn.q_proj", "text_encoder_2.text_projection"]
    assert [grid_level(path, 4) for path in paths] == [None, None]
