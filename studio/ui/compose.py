"""The Compose tab: ask on the left, see on the right; what happens when something is clicked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
from gradio.components import Component

from studio.errors import BadFile, StudioError
from studio.specs import Failed, Finished, Preview, Progress, RenderRequest, RenderResult, Stopped
from studio.ui import layout, stage
from studio.ui.controls import Updates, base_info
from studio.ui.parts import data_url, use_of
from studio.ui.strings import say
from studio.ui.words import adapter_words, marked

if TYPE_CHECKING:
    from studio.engine import Studio
    from studio.jobs import Job

RECENT = 12
JOB_FROM_ADDRESS = "() => [new URLSearchParams(location.search).get('job') || '']"
JOB_TO_ADDRESS = """(id) => {
    const address = new URL(location);
    if (id) address.searchParams.set('job', id); else address.searchParams.delete('job');
    history.replaceState(history.state, '', address);
}"""

Shown = Sequence[tuple[str, int]]  # name and seed of every picture in the result gallery


def build(studio: Studio) -> None:
    """Lay the tab out inside the open Blocks and connect it."""
    Compose(studio, layout.build(studio)).connect()


@dataclass(frozen=True)
class Compose:
    """Handlers of one page; all state lives in the browser's session or in the job, none here."""

    studio: Studio
    page: layout.Page

    def connect(self) -> None:
        """Say which click calls what. Nothing waits in Gradio's queue: the studio has its own."""
        page, controls = self.page, self.page.controls
        quiet: dict[str, Any] = {"show_progress": "hidden", "concurrency_limit": None, "api_visibility": "private"}
        watched = [page.job, *page.watched]
        # Following a job is an event of its own: while one runs, "once" ignores clicks, and the last moments of a
        # stream outlast the picture, so that the next click would be lost.
        asked = gr.on(
            [page.render.click, controls.plain["prompt"].submit],
            self.render,
            controls.inputs,
            watched,
            trigger_mode="once",
            **quiet,
        )
        asked.then(self.resume, page.job, watched, **quiet)
        page.cancel.click(self.cancel, page.job, [page.cancel, page.status], **quiet)
        page.job.change(None, page.job, None, js=JOB_TO_ADDRESS)
        # Two events, because of updates that follow closely on each other the browser may skip all but the last.
        opened = gr.on(None, self.attach, page.job, [*watched, *controls.outputs], js=JOB_FROM_ADDRESS, **quiet)
        opened.then(self.resume, page.job, watched, **quiet)
        page.recall.upload(self.recall, page.recall, [*controls.outputs, page.status, page.recall], **quiet)
        page.use.click(self.use, [page.pictures, page.chosen], [*controls.outputs, page.status], **quiet)
        page.reuse_seed.click(self.reuse_seed, [page.pictures, page.chosen], controls.plain["seed"], **quiet)
        page.new_seed.click(lambda: "", None, controls.plain["seed"], **quiet)
        page.refresh.click(self.refresh, None, controls.outputs, **quiet)
        page.gallery.select(self.select, page.pictures, [page.chosen, page.infotext], **quiet)
        page.recent.select(self.reopen, page.recent_names, page.watched, **quiet)
        base, method, prompt = (controls.plain[name] for name in ("base", "method", "prompt"))
        base.input(self.rebase, base, controls.outputs, **quiet)
        method.change(controls.for_method, method, list(controls.groups.values()), **quiet)
        gr.on(
            [prompt.change, controls.rows.change, base.change],
            self.mark,
            [prompt, base, controls.rows],
            page.unknown,
            trigger_mode="always_last",
            **quiet,
        )

    # ---- jobs

    def render(self, values: Mapping[Component, Any]) -> Updates:
        """Queue what the form holds; one sentence, and no job to follow, if it cannot be rendered."""
        try:
            job = self.studio.submit(self.page.controls.request(values))
        except StudioError as error:
            return {self.page.status: stage.problem(str(error)), self.page.job: ""}
        return {self.page.job: job.id, self.page.status: "", **self.busy(stage.working(None, None))}

    def attach(self, job_id: str) -> Updates:
        """A page was opened: offer what is there now, and fill the form from the job named in its address."""
        catalogue = self.studio.catalogue()
        offered = self.page.controls.refresh(catalogue) | self.recent_updates()
        if not job_id:
            return offered
        try:
            request = RenderRequest.model_validate_json(self.studio.jobs.job(job_id).payload)
        except StudioError:
            return offered | {self.page.status: stage.note(say("job_gone")), self.page.job: ""}
        shown = self.page.controls.show(request, catalogue)[0]
        return {**offered, **shown, **self.kept(request)[0], self.page.job: job_id}

    def resume(self, job_id: str) -> Iterator[Updates]:
        """Follow the job on the page: the one just queued, or the one that `attach` found."""
        if job_id:
            yield from self.follow(self.studio.jobs.job(job_id))

    def follow(self, job: Job) -> Iterator[Updates]:
        """Updates from a job's first event to its last; the same for a new job and after a reload."""
        yield {self.page.job: job.id, self.page.status: "", **self.busy(stage.working(None, None))}
        try:
            yield from self.events(job)
        except StudioError as error:  # the studio is being closed
            yield self.idle() | {self.page.status: stage.problem(str(error))}

    def events(self, job: Job) -> Iterator[Updates]:
        """Updates for the events of a job as they come; steps only as often as an eye can follow."""
        page, pace = self.page, stage.Pace()
        progress, preview = None, None
        for event in job.events():
            match event:
                case Finished(result=result):
                    yield {page.job: job.id} | self.finished(result)
                case Failed(message=message):
                    yield {page.job: job.id} | self.idle() | {page.status: stage.problem(message)}
                case Stopped():
                    yield {page.job: job.id} | self.idle() | {page.status: stage.note(say("stopped"))}
                case Progress() | Preview():
                    progress = event if isinstance(event, Progress) else progress
                    preview = event if isinstance(event, Preview) else preview
                    if pace.lets(event):
                        yield {page.job: job.id, page.status: "", **self.busy(stage.working(progress, preview))}

    def cancel(self, job_id: str) -> Updates:
        """Ask the job on the page to stop; its last event brings the buttons back."""
        try:
            self.studio.jobs.job(job_id).cancel()
        except StudioError as error:
            return {self.page.status: stage.problem(str(error))}
        return {self.page.cancel: gr.update(value=say("cancelling"), interactive=False)}

    def busy(self, shown: str) -> Updates:
        """Updates for a job at work. Each says everything, because the browser may skip the one before."""
        page = self.page
        hidden = {part: gr.update(visible=False) for part in (page.render, page.gallery, page.after)}
        return hidden | {page.cancel: gr.update(visible=True), page.stage: gr.update(visible=True, value=shown)}

    def idle(self) -> Updates:
        """Updates for no job at work and no picture to show."""
        page = self.page
        hidden = {part: gr.update(visible=False) for part in (page.gallery, page.after)}
        return hidden | {
            page.render: gr.update(visible=True),
            page.cancel: gr.update(visible=False, value=say("cancel"), interactive=True),
            page.stage: gr.update(visible=True, value=stage.invitation()),
        }

    # ---- pictures

    def finished(self, result: RenderResult) -> Updates:
        """Updates that show a result."""
        pictures = [(picture.name, picture.seed) for picture in result.pictures]
        report = result.report if result.report else None
        shown = self.idle() | self.pictures(pictures) | self.recent_updates()
        return shown | {
            self.page.status: stage.outcome(result),
            self.page.report: gr.update(value=report, visible=report is not None),
        }

    def pictures(self, pictures: Shown) -> Updates:
        """Updates that show saved pictures: their files as they are, so that what they carry survives a download."""
        page = self.page
        paths = [(name, seed, self.path(name)) for name, seed in pictures]
        there = [(name, seed, path) for name, seed, path in paths if path]
        if not there:
            return {}
        files = [(str(path), say("caption", seed=seed)) for _, seed, path in there]
        return {
            page.pictures: [(name, seed) for name, seed, _ in there],
            page.chosen: 0,
            page.gallery: gr.update(value=files, visible=True, selected_index=0 if len(files) == 1 else None),
            page.stage: gr.update(visible=False),
            page.after: gr.update(visible=True),
            page.infotext: self.infotext(there[0][0]),
        }

    def path(self, name: str) -> Path | None:
        """Where a picture lies; None if it is gone."""
        try:
            path = self.studio.gallery.path(name)
        except BadFile:
            return None
        return path if path.is_file() else None

    def infotext(self, name: str) -> str:
        """What a saved picture says about itself, as A1111 writes it; empty if it says nothing."""
        path = self.path(name)
        return (self.studio.gallery.read(path).infotext or "") if path else ""

    def recent_updates(self) -> Updates:
        """Updates of the strip of newest pictures."""
        newest = [(picture.name, picture.seed) for picture in self.studio.gallery.recent(RECENT)]
        paths = [(name, seed, self.path(name)) for name, seed in newest]
        there = [(name, seed, str(path)) for name, seed, path in paths if path]
        return {
            self.page.recent: gr.update(value=[path for *_, path in there], selected_index=None),
            self.page.recent_names: [(name, seed) for name, seed, _ in there],
            self.page.recent_box: gr.update(visible=bool(there)),
        }

    def select(self, pictures: Shown, event: gr.SelectData) -> tuple[int, str]:
        """A picture of the result was clicked."""
        index = int(event.index)
        return index, self.infotext(pictures[index][0]) if index < len(pictures) else ""

    def reopen(self, pictures: Shown, event: gr.SelectData) -> Updates:
        """A recent picture was clicked: show it as a result."""
        chosen = list(pictures)[int(event.index) : int(event.index) + 1]
        status = {self.page.status: "", self.page.report: gr.update(visible=False)}
        return self.idle() | self.pictures(chosen) | status

    # ---- the form

    def use(self, pictures: Shown, index: int) -> Updates:
        """Fill the form from the picture that is shown."""
        path = self.path(pictures[index][0]) if index < len(pictures) else None
        return self.fill(path) if path else {}

    def recall(self, dropped: str) -> Updates:
        """Fill the form from a dropped file; nothing is loaded or fetched for it."""
        return self.fill(Path(dropped)) | {self.page.recall: None}

    def fill(self, path: Path) -> Updates:
        """Updates that fill the form from a picture's own settings, or one sentence about why not."""
        catalogue = self.studio.catalogue()
        try:
            recalled = self.studio.gallery.read(path, catalogue.adapters)
        except StudioError as error:
            return {self.page.status: stage.problem(str(error))}
        if recalled.request is None:
            return {self.page.status: stage.problem(*recalled.notices)}
        updates, notices = self.page.controls.show(recalled.request, catalogue)
        kept, sentences = self.kept(recalled.request)
        remarks = stage.note(say("recalled"), *recalled.notices, *notices, *sentences)
        return updates | kept | {self.page.status: remarks}

    def kept(self, request: RenderRequest) -> tuple[Updates, list[str]]:
        """Updates of the picture to start from, and a sentence if it is no longer there."""
        picture, nothing = self.page.controls.picture, {"image": None, "mask": None}
        if request.image is None:
            return {picture: gr.update(value=nothing, shown=nothing)}, []
        try:
            given = {"image": request.image, "mask": request.mask}
            shown = {name: data_url(self.studio.gallery.kept(digest)) for name, digest in given.items() if digest}
        except StudioError:
            return {picture: gr.update(value=nothing, shown=nothing)}, [say("recall_picture")]
        return {picture: gr.update(value=given, shown=nothing | shown)}, []

    def reuse_seed(self, pictures: Shown, index: int) -> Any:
        """The seed of the picture that is shown."""
        return str(pictures[index][1]) if index < len(pictures) else gr.skip()

    def rebase(self, name: str) -> Updates:
        """Another base was chosen: its own defaults."""
        catalogue = self.studio.catalogue()
        base = base_info(catalogue, name)
        return self.page.controls.for_base(base, catalogue) if base else {}

    def refresh(self) -> Updates:
        """Offer files that came since the page was opened."""
        return self.page.controls.refresh(self.studio.catalogue())

    def mark(self, prompt: str | None, base: str, rows: Sequence[Mapping[str, Any]] | None) -> str:
        """The words of the prompt that a base with a vocabulary does not know."""
        catalogue = self.studio.catalogue()
        info = base_info(catalogue, base)
        if info is None or not info.vocabulary:
            return ""
        named = [row for row in rows or () if row.get("name")]
        also = adapter_words([use_of({**row, "weight": 1, "text_weight": None}) for row in named], catalogue.adapters)
        return marked(prompt or "", info.vocabulary, also)
