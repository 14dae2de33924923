"""A studio that draws gradients: the seam the page sees, without torch, a model or a second process."""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from studio.errors import BadRequest, UnknownName
from studio.gallery import Gallery
from studio.settings import Settings
from studio.specs import (
    AdapterInfo,
    BaseInfo,
    Catalogue,
    Failed,
    Finished,
    JobEvent,
    JobState,
    MethodInfo,
    Preview,
    Progress,
    RenderRequest,
    RenderResult,
    Stopped,
)

VOCABULARY = {
    "things": ("cat", "dog", "house", "boat", "tree", "flower"),
    "colours": ("red", "blue", "green", "yellow", "purple"),
    "places": ("in the forest", "on the beach", "in the city"),
    "relations": ("left of", "right of", "above"),
    "openings": ("a photo of",),
}
TOYBOX = BaseInfo(
    name="toybox", title="Toybox", family="toybox", width=128, height=128, steps=20, guidance=4.0, sampler="DDIM",
    schedule="Automatic", vocabulary=VOCABULARY,
)  # fmt: skip
OTHER = BaseInfo(
    name="other", title="Another base", family="sd15", width=64, height=96, steps=7, guidance=6.5, sampler="Euler",
    schedule="Karras",
)  # fmt: skip
ADAPTERS = (
    AdapterInfo(name="fox", title="Fox", family="toybox", hash="0" * 12, trigger="sks", words=("dog",), weight=0.8),
    AdapterInfo(name="style/<b>ink</b>", title="<b>Ink</b>", family="toybox", hash="1" * 12),
    AdapterInfo(name="portrait", title="Portrait", family="sd15", hash="2" * 12),
    AdapterInfo(name="broken", title="broken", family=None, hash=None, problem="This file is cut short."),
)
SCHEMA = {
    "properties": {
        "share": {"type": "number", "minimum": 0, "maximum": 1, "default": 0.5, "description": "How much."},
        "order": {"enum": ["given", "shuffled"], "default": "given"},
    }
}
METHODS = (
    MethodInfo(name="merge", title="Merge", summary="Adds all.", paper=None, families=("toybox",), schema={}),
    MethodInfo(name="switch", title="Switch", summary="Takes turns.", paper=None, families=("toybox",), schema=SCHEMA),
)


def gradient(seed: int, width: int, height: int) -> Image.Image:
    """A picture that depends on the seed and nothing else."""
    start, end = (tuple((seed * factor + shift * factor) % 256 for factor in (37, 91, 151)) for shift in (3, 6))
    ramp = Image.linear_gradient("L").resize((width, height))
    return Image.composite(Image.new("RGB", (width, height), start), Image.new("RGB", (width, height), end), ramp)


@dataclass
class FakeJob:
    """A job on a thread; `gate` lets a test hold it after its first step."""

    id: str
    payload: str
    studio: FakeStudio
    state: JobState = "queued"
    seen: list[JobEvent] = field(default_factory=list)
    news: threading.Condition = field(default_factory=threading.Condition)
    stop: threading.Event = field(default_factory=threading.Event)

    def add(self, event: JobEvent) -> None:
        with self.news:
            self.seen.append(event)
            self.news.notify_all()

    def events(self, after: int = 0) -> Iterator[JobEvent]:
        event = None
        while event is None or event.kind not in {"finished", "failed", "stopped"}:
            with self.news:
                while len(self.seen) <= after:
                    self.news.wait()
                event = self.seen[after]
            after += 1
            yield event

    def cancel(self) -> None:
        self.stop.set()
        self.studio.gate.set()

    def work(self) -> None:
        request = RenderRequest.model_validate_json(self.payload)
        self.add(Progress(phase="loading"))
        if request.prompt == "fail":
            self.add(Failed(error="RenderFailed", message="The picture came out as <i>nothing</i>."))
            return
        seed, steps = request.seed or 0, request.steps or 20
        for step in range(1, steps + 1):
            if self.stop.is_set():
                self.add(Stopped())
                return
            self.add(Progress(phase="sampling", step=step, total=steps, seconds=step / 10, left=(steps - step) / 10))
            self.add(Preview(step=step, images=tuple(self.preview(seed + index) for index in range(request.count))))
            self.studio.gate.wait()
        self.add(Finished(result=self.finish(request.model_copy(update={"seed": seed}))))

    def preview(self, seed: int) -> bytes:
        buffer = io.BytesIO()
        gradient(seed, 64, 64).save(buffer, "JPEG")
        return buffer.getvalue()

    def finish(self, request: RenderRequest) -> RenderResult:
        pictures = []
        for index in range(request.count):
            one = request.model_copy(update={"seed": (request.seed or 0) + index, "count": 1})
            image = gradient(one.seed or 0, one.width or 128, one.height or 128)
            pictures.append(self.studio.gallery.save(image, one, infotext_extra={}, report={}))
        return RenderResult(request=request, pictures=tuple(pictures), seconds=1.2, sampling_seconds=1, rows=40)


class FakeJobs:
    """Knows every job it was given."""

    def __init__(self) -> None:
        self.known: dict[str, FakeJob] = {}

    def job(self, job_id: str) -> FakeJob:
        if job_id not in self.known:
            raise UnknownName("job", job_id, ())
        return self.known[job_id]


class FakeStudio:
    """Same methods as `studio.engine.Studio`, as far as the page calls them."""

    def __init__(self, data_dir: Path) -> None:
        self.settings = Settings(data_dir=data_dir)
        self.gallery, self.jobs = Gallery(data_dir), FakeJobs()
        self.gate = threading.Event()  # cleared: jobs wait after their first step
        self.gate.set()
        self.methods: tuple[MethodInfo, ...] = METHODS

    def catalogue(self) -> Catalogue:
        return Catalogue(
            bases=(TOYBOX, OTHER),
            adapters=ADAPTERS,
            methods=self.methods,
            samplers=("DPM++ 2M", "Euler", "DDIM"),
            schedules=("Automatic", "Karras"),
        )

    def submit(self, request: RenderRequest) -> FakeJob:
        if (request.width or 8) % 8:
            raise BadRequest(f"Width {request.width} is not divisible by 8; choose {(request.width or 0) // 8 * 8}.")
        name = hashlib.sha256(f"{len(self.jobs.known)}{id(self)}".encode()).hexdigest()[:24]
        job = self.jobs.known[name] = FakeJob(name, request.model_dump_json(), self)
        threading.Thread(target=job.work, daemon=True).start()
        return job

    def keep(self, data: bytes) -> str:
        return self.gallery.keep(data)
