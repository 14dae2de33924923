"""The form: its widgets, the request they hold, and the updates that make them hold another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.components import Component
from pydantic import ValidationError

from studio.errors import BadRequest, shorten
from studio.specs import BaseInfo, Catalogue, RenderRequest
from studio.ui.form import Form
from studio.ui.parts import choices, row_of, use_of
from studio.ui.strings import ENGLISH, say
from studio.ui.words import chips

# Fields whose widget holds the value as the request does.
PLAIN = (
    "prompt negative base method sampler schedule seed count steps guidance guidance_rescale width height clip_skip"
).split()
FROM_BASE = "steps guidance width height sampler schedule".split()

Updates = dict[Any, Any]


def base_info(catalogue: Catalogue, name: str | None) -> BaseInfo | None:
    """What the catalogue says about a base; None if it has none of this name."""
    return next((info for info in catalogue.bases if info.name == name), None)


@dataclass(frozen=True)
class Controls:
    """Every widget that makes the request."""

    plain: Mapping[str, Component]
    vae: Component
    strength: Component
    rows: gr.HTML
    picture: gr.HTML
    chips: gr.HTML
    chips_box: gr.Accordion
    forms: Mapping[str, Form]
    groups: Mapping[str, gr.Column]

    @property
    def inputs(self) -> set[Component]:
        """All widgets a request is read from."""
        options = (part for form in self.forms.values() for part in form.widgets)
        return {*self.plain.values(), self.vae, self.strength, self.rows, self.picture, *options}

    @property
    def outputs(self) -> list[Any]:
        """All that `show` and `for_base` may update."""
        return [*self.inputs, self.chips, self.chips_box, *self.groups.values()]

    def request(self, values: Mapping[Component, Any]) -> RenderRequest:
        """The request the form holds; empty fields are left to the base.

        Raises:
            BadRequest: a value does not fit; names the field and the value.
        """
        data = {name: values[part] for name, part in self.plain.items() if values[part] not in (None, "")}
        form = self.forms.get(str(data.get("method")))
        given = values[self.picture] or {}
        if given.get("image"):
            data |= {"image": given["image"], "mask": given.get("mask"), "strength": values[self.strength]}
        try:
            adapters = tuple(use_of(row) for row in values[self.rows] or ())
            options = form.read(values) if form else {}
            return RenderRequest(**data, vae=values[self.vae] or None, adapters=adapters, options=options)
        except ValidationError as error:
            raise BadRequest(misfit(error)) from error

    def show(self, request: RenderRequest, catalogue: Catalogue) -> tuple[Updates, list[str]]:
        """Updates that fill the form from `request`, and a sentence for everything that is not available here."""
        offered = {
            "base": [info.name for info in catalogue.bases],
            "method": [info.name for info in catalogue.methods],
            "sampler": catalogue.samplers,
            "schedule": catalogue.schedules,
        }
        base = base_info(catalogue, request.base)
        updates: Updates = self.for_base(base, catalogue) if base else {}
        notices = []
        for name, part in self.plain.items():
            value = getattr(request, name)
            if value is not None and value not in offered.get(name, [value]):
                notices.append(say("recall_choice", label=say(name), name=shorten(value)))
            elif value is not None or name == "seed":
                updates[part] = gr.update(value="" if value is None else str(value) if name == "seed" else value)
        library = {info.name for info in catalogue.adapters}
        notices += [
            say("recall_adapter", name=shorten(use.name)) for use in request.adapters if use.name not in library
        ]
        updates[self.rows] = gr.update(
            **self._row_props(base, catalogue), value=[row_of(use) for use in request.adapters]
        )
        updates[self.vae] = gr.update(value=request.vae if request.vae in catalogue.vaes else "")
        updates[self.strength] = gr.update(value=request.strength)
        form = self.forms.get(request.method)
        return updates | (form.show(request.options) if form else {}) | self.for_method(request.method), notices

    def for_base(self, base: BaseInfo, catalogue: Catalogue) -> Updates:
        """Updates that follow from choosing `base`: its own defaults, its words, the adapters that fit."""
        return {
            **{self.plain[name]: gr.update(value=getattr(base, name)) for name in FROM_BASE},
            self.rows: gr.update(**self._row_props(base, catalogue)),
            self.chips: gr.update(value=chips(base.vocabulary)),
            self.chips_box: gr.update(visible=bool(base.vocabulary)),
        }

    def _row_props(self, base: BaseInfo | None, catalogue: Catalogue) -> dict[str, Any]:
        return {"choices": choices(catalogue.adapters), **({"family": base.family} if base else {})}

    def for_method(self, method: str | None) -> Updates:
        """Updates that show the options of `method` and hide all others."""
        return {group: gr.update(visible=name == method) for name, group in self.groups.items()}

    def refresh(self, catalogue: Catalogue) -> Updates:
        """Updates that offer what is there now, leaving every choice as it is."""
        bases = [(info.title, info.name) for info in catalogue.bases]
        return {
            self.plain["base"]: gr.update(choices=bases),
            self.rows: gr.update(choices=choices(catalogue.adapters)),
            self.vae: gr.update(choices=vae_choices(catalogue.vaes)),
        }


def vae_choices(vaes: Iterable[str]) -> list[tuple[str, str]]:
    """The VAE menu: the base's own first."""
    return [(say("vae_own"), ""), *((name, name) for name in vaes)]


def misfit(error: ValidationError) -> str:
    """The first thing pydantic found, as one sentence with the field's name on the page."""
    first = error.errors(include_url=False)[0]
    name = str(first["loc"][-1] if first["loc"] else error.title)
    label = ENGLISH.get(name) or ENGLISH.get(f"rows.{name}") or name
    why = first["msg"].removeprefix("Input ").removeprefix("Value error, ")
    return say("misfit", label=label, value=shorten(str(first["input"])), why=why)
