"""A schema becomes widgets and the widgets' values become what the schema asks for."""

from __future__ import annotations

import json
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from studio.errors import BadRequest
from studio.ui.form import Form, fields, read, show


class Options(BaseModel):
    """One field of every kind the form knows."""

    on: bool = True
    maybe: bool | None = None
    mode: Literal["soft", "hard"] = "soft"
    steps: int = Field(4, ge=1, le=20, description="How many.")
    share: float = Field(0.5, ge=0, le=1)
    limit: float | None = None
    free: int = 3
    name: str = "x"
    words: tuple[str, ...] = ()
    parts: list[float] = [0.5, 1.0]
    table: dict[str, float] = {}


FIELDS = {field.name: field for field in fields(Options.model_json_schema())}
FORM = Form.build(Options.model_json_schema(), "test")

options = st.builds(
    Options,
    on=st.booleans(),
    maybe=st.none() | st.booleans(),
    mode=st.sampled_from(["soft", "hard"]),
    steps=st.integers(1, 20),
    share=st.floats(0, 1),
    limit=st.none() | st.floats(-1e6, 1e6),
    free=st.integers(-(10**6), 10**6),
    name=st.text(max_size=20),
    words=st.lists(
        st.from_regex(r"[a-z]{2,6}(#[1-9])?", fullmatch=True).filter(lambda w: w not in {"true", "null"})
    ).map(tuple),
    parts=st.lists(st.floats(-10, 10), max_size=4),
    table=st.dictionaries(st.text(max_size=5), st.floats(-10, 10), max_size=3),
)


@given(options)
def test_what_is_shown_reads_back_the_same(values: Options) -> None:
    dumped = values.model_dump()
    held = {name: read(field, show(field, dumped[name])) for name, field in FIELDS.items()}
    assert Options(**{name: value for name, value in held.items() if value is not None}) == values


@given(options)
def test_the_widgets_of_a_form_hold_what_it_shows(values: Options) -> None:
    updates = FORM.show(values.model_dump())
    held = {widget: updates[widget]["value"] for widget in FORM.widgets}
    assert Options(**FORM.read(held)) == values


def test_defaults_ranges_and_sentences_come_from_the_model() -> None:
    steps = FIELDS["steps"]
    assert (steps.kind, steps.default, steps.minimum, steps.maximum, steps.help) == ("whole", 4, 1, 20, "How many.")
    assert FIELDS["maybe"].choices == (None, True, False)
    assert {name: field.kind for name, field in FIELDS.items() if name in {"words", "table", "limit"}} == {
        "words": "list",
        "table": "json",
        "limit": "number",
    }


def test_a_reference_to_an_enum_is_followed() -> None:
    schema: dict[str, Any] = {
        "$defs": {"Order": {"enum": ["up", "down"], "type": "string"}},
        "properties": {"order": {"$ref": "#/$defs/Order", "default": "down"}},
    }
    (order,) = fields(schema)
    assert (order.kind, order.choices, order.default) == ("choice", ("up", "down"), "down")
    assert read(order, json.dumps("up")) == "up"


@pytest.mark.parametrize(("name", "held"), [("limit", "wide"), ("table", "{"), ("free", "3x")])
def test_text_that_does_not_fit_is_one_sentence_with_the_value(name: str, held: str) -> None:
    with pytest.raises(BadRequest, match=held.replace("{", r"\{")):
        read(FIELDS[name], held)
