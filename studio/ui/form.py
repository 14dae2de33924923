"""A JSON schema (of a pydantic model) as widgets, and back: options appear without a line written for them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import gradio as gr
from gradio.components import Component

from studio.errors import BadRequest, shorten
from studio.ui.strings import say

Kind = Literal["toggle", "choice", "whole", "number", "text", "list", "json"]
SCALARS: dict[str, Kind] = {"boolean": "toggle", "integer": "whole", "number": "number", "string": "text"}


@dataclass(frozen=True)
class Field:
    """One option: what it is called, what it may be, and what it is when nobody touches it."""

    name: str
    label: str
    help: str
    kind: Kind
    default: Any
    optional: bool = False
    choices: tuple[Any, ...] = ()
    minimum: float | None = None
    maximum: float | None = None


def fields(schema: Mapping[str, Any]) -> tuple[Field, ...]:
    """The fields of an object schema in their order; `$ref`, enums and “or null” are understood."""
    definitions = schema.get("$defs", {})
    return tuple(_field(name, part, definitions) for name, part in schema.get("properties", {}).items())


def _field(name: str, part: Mapping[str, Any], definitions: Mapping[str, Any]) -> Field:
    core, optional = _core(part, definitions)
    choices = tuple(core["enum"]) if "enum" in core else ((core["const"],) if "const" in core else ())
    kind: Kind = "choice" if choices else SCALARS.get(core.get("type", ""), "json")
    if kind == "toggle" and optional:  # a checkbox has no third state
        kind, choices = "choice", (True, False)
    if core.get("type") == "array" and _core(core.get("items", {}), definitions)[0].get("type") in SCALARS:
        kind = "list"
    return Field(
        name=name,
        label=part.get("title") or name.replace("_", " ").capitalize(),
        help=part.get("description") or core.get("description") or "",
        kind=kind,
        default=part.get("default"),
        optional=optional,
        choices=((None, *choices) if optional else choices),
        minimum=core.get("minimum"),
        maximum=core.get("maximum"),
    )


def _core(part: Mapping[str, Any], definitions: Mapping[str, Any]) -> tuple[Mapping[str, Any], bool]:
    """The schema without references and “or null”, and whether null was allowed."""
    if "$ref" in part:
        return _core(definitions[part["$ref"].rpartition("/")[2]], definitions)
    for union in ("anyOf", "oneOf", "allOf"):
        kinds = part.get(union, ())
        rest = [kind for kind in kinds if kind.get("type") != "null"]
        if len(rest) == 1:
            core, optional = _core(rest[0], definitions)
            return core, optional or len(rest) < len(kinds)
    return part, False


def widget(field: Field, elem_id: str) -> Component:
    """The widget for one field, showing its default."""
    common: dict[str, Any] = {"label": field.label, "info": field.help or None, "elem_id": elem_id}
    value = show(field, field.default)
    if field.kind == "toggle":
        return gr.Checkbox(value=value, **common)
    if field.kind == "choice":
        choices = [(_named(choice), json.dumps(choice)) for choice in field.choices]
        return gr.Dropdown(choices=choices, value=value, **common)
    if field.kind not in {"whole", "number"} or field.default is None:
        return gr.Textbox(value=value, **common)  # a gr.Number cannot be empty
    whole = field.kind == "whole"
    if field.minimum is None or field.maximum is None:
        return gr.Number(value=value, precision=0 if whole else None, step=1 if whole else 0.01, **common)
    step = 1 if whole else _step(field.maximum - field.minimum)
    return gr.Slider(field.minimum, field.maximum, value=value, step=step, **common)


def _named(choice: Any) -> str:
    words = {None: "automatic", True: "yes", False: "no"}
    return words[choice] if choice is None or isinstance(choice, bool) else str(choice)


def _step(span: float) -> float:
    """A round step that cuts `span` into at least a hundred parts."""
    return 10.0 ** math.floor(math.log10(span / 100)) if span > 0 else 0.01


def show(field: Field, value: Any) -> Any:
    """What the widget holds for `value`."""
    if field.kind == "choice":
        return json.dumps(value)
    if field.kind == "list":
        return ", ".join(str(item) for item in value or ())
    if field.kind == "json":
        return "" if value is None else json.dumps(value, ensure_ascii=False)
    return "" if value is None else value


def read(field: Field, held: Any) -> Any:
    """The value a widget holds.

    Raises:
        BadRequest: text that is no JSON, or a number field without a number.
    """
    if field.kind == "choice":
        return None if held is None else json.loads(held)
    if held is None or held == "":
        return None if field.optional else {"text": "", "list": []}.get(field.kind)
    if field.kind == "list":
        return [_scalar(part.strip()) for part in str(held).split(",") if part.strip()]
    if field.kind == "json":
        try:
            return json.loads(held)
        except json.JSONDecodeError as error:
            raise BadRequest(say("not_json", label=field.label, value=shorten(held), why=error.msg)) from error
    return _number(field, held) if field.kind in {"whole", "number"} else held


def _number(field: Field, held: Any) -> float:
    """A number as typed: whole where it is whole and should be. Raises BadRequest."""
    try:
        value = float(held)
    except ValueError as error:
        raise BadRequest(say("not_number", label=field.label, value=shorten(str(held)))) from error
    return int(value) if field.kind == "whole" and value.is_integer() else value


def _scalar(text: str) -> Any:
    """A list item as typed: numbers and true/false as such, anything else as text."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        return text
    return value if isinstance(value, (bool, int, float)) else text


@dataclass(frozen=True)
class Form:
    """The widgets of one schema, in the order of its fields."""

    fields: tuple[Field, ...]
    widgets: tuple[Component, ...]

    @classmethod
    def build(cls, schema: Mapping[str, Any], elem_id: str) -> Form:
        """Make the widgets inside the layout that is open."""
        all_fields = fields(schema)
        return cls(all_fields, tuple(widget(field, f"{elem_id}-{field.name}") for field in all_fields))

    def read(self, values: Mapping[Component, Any]) -> dict[str, Any]:
        """The options the widgets hold; an empty field is left out, so that its default holds. Raises BadRequest."""
        options = {field.name: read(field, values[part]) for field, part in zip(self.fields, self.widgets, strict=True)}
        return {name: value for name, value in options.items() if value is not None}

    def show(self, options: Mapping[str, Any]) -> dict[Component, Any]:
        """Updates that make the widgets hold `options`, defaults where a field is not among them."""
        return {
            part: gr.update(value=show(field, options.get(field.name, field.default)))
            for field, part in zip(self.fields, self.widgets, strict=True)
        }
