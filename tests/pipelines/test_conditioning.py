"""Rows of a composed call, guidance over them, and the table of methods."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipelines.base import ComposedPipeline
from pipelines.composer import catalogue, find, options_of
from pipelines.conditioning import Embedded, Guidance, Row, assemble
from pipelines.errors import BadRequest, UnknownName
from tests.pipelines import tiny
from tests.pipelines.shots import Shot, ours


def embedded(number: int, guided: bool) -> Embedded:
    text = {"embeds": torch.full((1, 2, 3), float(number)), "pooled": torch.full((1, 4), float(number))}
    return Embedded(text, {name: -value for name, value in text.items()} if guided else None)


@given(st.integers(1, 3), st.integers(1, 3), st.booleans())
def test_rows_are_laid_out_half_by_half_and_branch_by_branch(branches: int, images: int, guided: bool) -> None:
    parts = [embedded(number + 1, guided) for number in range(branches)]
    cond = assemble(parts, images, Guidance(), {"time_ids": torch.ones(1, 6)})
    halves = ["without", "text"] if guided else ["text"]
    assert list(cond.rows) == [Row(b, h, i) for h in halves for b in range(branches) for i in range(images)]  # type: ignore[arg-type]
    assert cond.unconditional == (branches * images if guided else 0)
    for row, embeds, pooled in zip(cond.rows, cond.embeds, cond.extras["text_embeds"], strict=True):
        value = (row.branch + 1) * (1 if row.half == "text" else -1)
        assert (embeds == value).all() and (pooled == value).all()
    assert cond.extras["time_ids"].shape == (len(cond.rows), 6)
    latents = torch.arange(images)
    seen = latents if cond.images is None else latents[cond.images]
    assert seen.tolist() == [row.image for row in cond.rows]


@given(st.data())
def test_selected_rows_keep_everything_that_is_theirs(data: st.DataObject) -> None:
    cond = assemble([embedded(1, True), embedded(2, True)], 2, Guidance(), {}, torch.ones(1, 5))
    index = data.draw(st.lists(st.integers(0, 7), min_size=1, max_size=8))
    part = cond.select(index)
    assert part.rows == tuple(cond.rows[i] for i in index)
    assert torch.equal(part.embeds, cond.embeds[index])
    assert torch.equal(part.extras["text_embeds"], cond.extras["text_embeds"][index])
    assert part.timestep_cond is not None and part.timestep_cond.shape == (len(index), 5)


@given(st.floats(1.5, 20), st.integers(1, 3), st.integers(1, 2))
def test_guidance_is_linear_and_exact_at_its_ends(scale: float, branches: int, images: int) -> None:
    cond = assemble([embedded(b, True) for b in range(branches)], images, Guidance(scale), {})
    prediction = torch.randn(2 * branches * images, 4, 3, 3, generator=torch.Generator().manual_seed(images))
    without, text = prediction.chunk(2)
    guided = ComposedPipeline.guide(SimpleNamespace(), prediction, cond)  # type: ignore[arg-type]
    assert torch.allclose(guided, (1 - scale) * without + scale * text, atol=1e-4)
    same = torch.cat([text, text])
    assert torch.equal(ComposedPipeline.guide(SimpleNamespace(), same, cond), text)  # type: ignore[arg-type]


def test_rescaled_guidance_has_the_deviation_of_the_text_half() -> None:
    cond = assemble([embedded(1, True)], 2, Guidance(9.0, 1.0), {})
    prediction = torch.randn(4, 4, 8, 8)
    guided = ComposedPipeline.guide(SimpleNamespace(), prediction, cond)  # type: ignore[arg-type]
    assert torch.allclose(guided.std((1, 2, 3)), prediction[2:].std((1, 2, 3)), rtol=1e-4)


@pytest.mark.parametrize(("guidance", "rows"), [(5.0, 2), (1.0, 1), (0.0, 1)])
def test_rows_are_counted(guidance: float, rows: int) -> None:
    pipe = tiny.sd()
    ours(pipe, Shot(guidance=guidance, steps=3))
    assert pipe.rows_spent == 3 * 2 * rows
    ours(pipe, Shot("Heun", guidance=guidance, steps=3))
    assert pipe.rows_spent == 5 * 2 * rows, "Heun asks twice a step, but for the last"


class TestMethods:
    def test_names_are_found(self) -> None:
        assert [find(method.name) for method in catalogue()] == list(catalogue())
        assert find("merge").title == "Merge"

    def test_an_unknown_method_is_told_the_choices(self) -> None:
        with pytest.raises(UnknownName, match=r"Unknown method “merg”; choose one of: merge"):
            find("merg")

    @pytest.mark.parametrize("given_options", [{"speed": 3}, {"": None}])
    def test_an_unknown_option_is_named(self, given_options: dict[str, Any]) -> None:
        with pytest.raises(BadRequest, match="option of merge"):
            options_of(find("merge"), given_options)

    def test_merge_says_how_it_was_put_in(self) -> None:
        pipe = tiny.sd()
        merge = find("merge")
        for adapters, plan in ((), "none"), ((tiny.adapter(pipe, 0),), "fused"):
            composer = merge(pipe, adapters, merge.Options())
            with composer.installed():
                assert composer.report() == {"plan": plan}
