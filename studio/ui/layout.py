"""What stands where on the Compose tab; no behaviour."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr
from gradio.components import Component

from studio.errors import BadFile
from studio.specs import BaseInfo, Catalogue, MethodInfo
from studio.ui import stage
from studio.ui.controls import Controls, vae_choices
from studio.ui.form import Form
from studio.ui.parts import adapter_rows, painter, script
from studio.ui.strings import say
from studio.ui.words import chips

if TYPE_CHECKING:
    from studio.engine import Studio

PICTURES = [".png", ".jpg", ".jpeg", ".webp"]


@dataclass(frozen=True)
class Page:
    """Every part of the tab that a handler reads or changes."""

    controls: Controls
    render: gr.Button
    cancel: gr.Button
    job: gr.Textbox
    unknown: gr.HTML
    stage: gr.HTML
    gallery: gr.Gallery
    status: gr.HTML
    after: gr.Column
    use: gr.Button
    reuse_seed: gr.Button
    new_seed: gr.Button
    refresh: gr.Button
    infotext: gr.Textbox
    report: gr.JSON
    recent: gr.Gallery
    recent_box: gr.Column
    recall: gr.File
    pictures: gr.State
    chosen: gr.State
    recent_names: gr.State

    @property
    def watched(self) -> list[Any]:
        """All that a running or finished job changes, apart from the job's own name."""
        buttons, result = [self.render, self.cancel], [self.gallery, self.after, self.infotext, self.report]
        states = [self.pictures, self.chosen, self.recent_names]
        return [self.stage, self.status, *buttons, *result, self.recent, self.recent_box, *states]


def build(studio: Studio) -> Page:
    """Make the tab inside the open Blocks; raises BadFile where there is no base at all."""
    catalogue = studio.catalogue()
    if not catalogue.bases:
        raise BadFile(say("no_base"))
    base = catalogue.bases[0]
    gr.HTML(f"<header><h1>{escape(say('title'))}</h1><p>{escape(say('tagline'))}</p></header>", elem_id="head")
    with gr.Row(elem_id="page"):
        with gr.Column(elem_id="ask", elem_classes="card"):
            asked, ask = _ask(base)
        with gr.Column(elem_id="see", elem_classes="card"):
            see = _see()
        with gr.Column(elem_id="tune", elem_classes="card"):
            controls, tune = _tune(studio, catalogue, asked)
    states = {"pictures": gr.State([]), "chosen": gr.State(0), "recent_names": gr.State([])}
    return Page(controls=controls, **ask, **see, **tune, **states)


def _ask(base: BaseInfo) -> tuple[dict[str, Any], dict[str, Any]]:
    first = say("first_prompt") if base.vocabulary else ""
    prompt = gr.Textbox(
        first, label=say("prompt"), placeholder=say("prompt_hint"), lines=3, max_lines=12, elem_id="prompt"
    )
    unknown = gr.HTML("", elem_id="unknown")
    with gr.Row(elem_id="go"):
        render = gr.Button(say("render"), variant="primary", size="lg", elem_id="render")
        cancel = gr.Button(say("cancel"), variant="stop", size="lg", elem_id="cancel", visible=False)
    job = gr.Textbox("", visible="hidden", elem_id="job", label="job")
    with gr.Accordion(say("words"), open=True, visible=bool(base.vocabulary), elem_id="words") as box:
        gr.HTML(f'<p class="hint">{escape(say("words_hint"))}</p>')
        known = gr.HTML(chips(base.vocabulary), js_on_load=script("chips.js"), elem_id="chips")
    with gr.Accordion(say("negative"), open=False):
        negative = gr.Textbox(
            "", show_label=False, placeholder=say("negative_hint"), lines=2, container=False, elem_id="negative"
        )
    asked = {"prompt": prompt, "negative": negative, "chips": known, "chips_box": box}
    return asked, {"render": render, "cancel": cancel, "job": job, "unknown": unknown}


def _see() -> dict[str, Any]:
    shown = gr.HTML(stage.invitation(), elem_id="stage")
    gallery = gr.Gallery(
        format="png",
        columns=2,
        object_fit="contain",
        height=520,
        visible=False,
        show_label=False,
        label=say("result"),
        interactive=False,
        buttons=["download", "fullscreen"],
        elem_id="gallery",
    )
    status = gr.HTML("", elem_id="status")
    with gr.Column(visible=False, elem_id="after") as after:
        with gr.Row():
            use = gr.Button(say("use"), size="sm", elem_id="use")
            reuse_seed = gr.Button(say("reuse_seed"), size="sm", elem_id="reuse-seed")
        with gr.Accordion(say("details"), open=False, elem_id="details"):
            infotext = gr.Textbox(
                "", show_label=False, lines=4, interactive=False, buttons=["copy"], container=False, elem_id="infotext"
            )
            report = gr.JSON(None, label=say("report"), visible=False)
    with gr.Column(visible=False, elem_id="recent-box") as recent_box:
        gr.HTML(f"<h2>{escape(say('recent'))}</h2>")
        recent = gr.Gallery(
            format="png",
            columns=6,
            fit_columns=False,
            height="auto",
            label=say("recent"),
            show_label=False,
            allow_preview=False,
            object_fit="cover",
            interactive=False,
            buttons=[],
            elem_id="recent",
        )
    return {
        "stage": shown,
        "gallery": gallery,
        "status": status,
        "after": after,
        "use": use,
        "reuse_seed": reuse_seed,
        "infotext": infotext,
        "report": report,
        "recent": recent,
        "recent_box": recent_box,
    }


def _tune(studio: Studio, catalogue: Catalogue, asked: Mapping[str, Any]) -> tuple[Controls, dict[str, Any]]:
    first = catalogue.bases[0]
    with gr.Row(elem_classes="tight"):
        bases = [(info.title, info.name) for info in catalogue.bases]
        base = gr.Dropdown(bases, value=first.name, label=say("base"), elem_id="base", scale=3)
        refresh = gr.Button(say("refresh"), size="sm", elem_id="refresh", scale=1, min_width=120)
    gr.HTML(f"<h2>{escape(say('adapters'))}</h2>", elem_classes="heading")
    rows = adapter_rows(catalogue.adapters, first.family)
    method, forms, groups = _method(catalogue.methods)
    gr.HTML(f"<h2>{escape(say('settings'))}</h2>", elem_classes="heading")
    plain, new_seed = _settings(first, catalogue)
    # no accordion: it makes its children when it is opened, and the painter would miss what it was given before
    with gr.Column(elem_id="picture-box"):
        gr.HTML(f"<h2>{escape(say('picture'))}</h2>", elem_classes="heading")
        picture = painter(studio.keep)
        strength = gr.Slider(
            0, 1, value=0.75, step=0.01, label=say("strength"), info=say("strength_info"), elem_id="strength"
        )
    with gr.Accordion(say("more"), open=False):
        more, vae = _more(catalogue)
    with gr.Accordion(say("recall"), open=False, elem_id="recall-box"):
        gr.HTML(f'<p class="hint">{escape(say("recall_hint"))}</p>')
        recall = gr.File(file_types=PICTURES, show_label=False, label=say("recall"), height=120, elem_id="recall")
    asked_plain = {"prompt": asked["prompt"], "negative": asked["negative"], "base": base, "method": method}
    controls = Controls(
        plain={**asked_plain, **plain, **more},
        vae=vae,
        strength=strength,
        rows=rows,
        picture=picture,
        chips=asked["chips"],
        chips_box=asked["chips_box"],
        forms=forms,
        groups=groups,
    )
    return controls, {"new_seed": new_seed, "refresh": refresh, "recall": recall}


def _method(methods: tuple[MethodInfo, ...]) -> tuple[gr.Dropdown, dict[str, Form], dict[str, gr.Column]]:
    """The method's menu, and for every method that has options one group of widgets, the first shown."""
    choices = [(info.title, info.name) for info in methods]
    method = gr.Dropdown(choices, value=methods[0].name, label=say("method"), elem_id="method")
    forms, groups = {}, {}
    for info in methods:
        if not info.schema_.get("properties"):
            continue
        with gr.Column(visible=info is methods[0], elem_id=f"options-{info.name}", elem_classes="options") as group:
            forms[info.name] = Form.build(info.schema_, f"option-{info.name}")
        groups[info.name] = group
    return method, forms, groups


def _settings(base: BaseInfo, catalogue: Catalogue) -> tuple[dict[str, Component], gr.Button]:
    with gr.Row(elem_classes="numbers"):
        steps = gr.Number(base.steps, label=say("steps"), precision=0, elem_id="steps", min_width=80)
        guidance = gr.Number(base.guidance, label=say("guidance"), step=0.5, elem_id="guidance", min_width=80)
        sized = {"precision": 0, "step": base.multiple, "min_width": 80}
        width = gr.Number(base.width, label=say("width"), elem_id="width", **sized)
        height = gr.Number(base.height, label=say("height"), elem_id="height", **sized)
        count = gr.Number(1, label=say("count"), precision=0, elem_id="count", min_width=80)
    with gr.Row(elem_classes="pair"):
        sampler = gr.Dropdown(list(catalogue.samplers), value=base.sampler, label=say("sampler"), elem_id="sampler")
        schedule = gr.Dropdown(
            list(catalogue.schedules), value=base.schedule, label=say("schedule"), elem_id="schedule"
        )
    with gr.Row(elem_classes="tight"):
        # a gr.Number cannot be empty: the browser shows 0, which is a seed
        seed = gr.Textbox("", label=say("seed"), placeholder=say("seed_hint"), elem_id="seed", scale=3)
        new_seed = gr.Button(say("new_seed"), size="sm", elem_id="new-seed", scale=1, min_width=120)
    parts: dict[str, Component] = {"steps": steps, "guidance": guidance, "sampler": sampler, "schedule": schedule}
    return {**parts, "width": width, "height": height, "count": count, "seed": seed}, new_seed


def _more(catalogue: Catalogue) -> tuple[dict[str, Component], gr.Dropdown]:
    with gr.Row(elem_classes="pair"):
        clip = {"label": say("clip_skip"), "info": say("clip_skip_info"), "elem_id": "clip-skip"}
        clip_skip = gr.Slider(1, 12, value=1, step=1, **clip)
        less = {"label": say("guidance_rescale"), "info": say("guidance_rescale_info"), "elem_id": "rescale"}
        rescale = gr.Slider(0, 1, value=0, step=0.05, **less)
    vae = gr.Dropdown(vae_choices(catalogue.vaes), value="", label=say("vae"), elem_id="vae")
    return {"clip_skip": clip_skip, "guidance_rescale": rescale}, vae
