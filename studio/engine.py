"""Studio: the one door. Everything that makes a picture goes through `render`, from a page, a script or a queue."""

from __future__ import annotations

import logging
import os
import secrets
import threading
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

from studio.bases import Bases
from studio.errors import AdapterMismatch, BadRequest, RenderFailed, UnknownName, shorten
from studio.gallery import Gallery
from studio.library import Library
from studio.settings import Settings
from studio.specs import (
    MAX_SEED,
    AdapterUse,
    BaseInfo,
    Catalogue,
    Finished,
    MethodInfo,
    RenderEvent,
    RenderRequest,
    RenderResult,
)

if TYPE_CHECKING:
    from studio.jobs import Job, Queue
    from studio.rendering import Renderer


class Studio:
    """Requests in, events and files out. Cheap to make: models load when the first picture is asked for.

    Usable as a context manager; `close()` ends the worker process, if one was started.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self.bases = Bases(self.settings)
        self._opening = threading.Lock()  # the first users of the queue may come at once, from several threads
        self._jobs: Queue | None = None

    def __enter__(self) -> Studio:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the worker process and let go of the data folder."""
        with self._opening:
            if self._jobs is not None:
                self._jobs.close()

    @cached_property
    def gallery(self) -> Gallery:
        """Pictures made and pictures brought."""
        return Gallery(self.settings.data_dir)

    @cached_property
    def library(self) -> Library:
        """Adapter files."""
        shipped = self.settings.assets_dir / "toybox" / "adapters"
        return Library((*self.settings.adapter_dirs, shipped), self.settings.data_dir / "adapters")

    @property
    def jobs(self) -> Queue:
        """The queue and its worker process, started when first asked for."""
        from studio.database import NAME
        from studio.jobs import Queue

        with self._opening:
            if self._jobs is None:
                self._jobs = Queue(self.settings.data_dir / NAME, self.settings)
            return self._jobs

    @cached_property
    def _renderer(self) -> Renderer:
        _quiet_imports()
        from studio.rendering import Renderer

        return Renderer(self)

    # ---- what there is -------------------------------------------------------------------------------------------

    def catalogue(self) -> Catalogue:
        """Everything a form can offer: bases, adapters, methods with their options, samplers."""
        from pipelines import composer, samplers

        methods = tuple(
            MethodInfo(
                name=method.name,
                title=method.title,
                summary=(method.__doc__ or "").strip().splitlines()[0],
                paper=method.paper,
                families=tuple(sorted(method.families)),
                schema_=method.Options.model_json_schema(),
            )
            for method in composer.catalogue()
        )
        return Catalogue(
            bases=self.bases.infos(),
            adapters=tuple(self.library.scan()),
            methods=methods,
            samplers=samplers.NAMES,
            schedules=samplers.SCHEDULES,
            vaes=self.bases.vaes(),
        )

    # ---- rendering -----------------------------------------------------------------------------------------------

    def check(self, request: RenderRequest) -> RenderRequest:
        """Fill what the request leaves open and refuse what cannot be rendered, before anything is loaded.

        Raises:
            BadRequest, UnknownName: a value that does not fit; names it and the choices.
            BadFile, AdapterMismatch: a file that cannot be used with this base.
        """
        base = self.bases.info(request.base)
        resolved = resolve(request, base)
        _check_size(resolved, base)
        _check_method(resolved, base)
        _check_pictures(resolved, self.gallery)
        if request.vae is not None and request.vae not in self.bases.vaes():
            raise UnknownName("VAE", request.vae, self.bases.vaes())
        return resolved.model_copy(
            update={"adapters": tuple(self._check_adapter(use, base) for use in resolved.adapters)}
        )

    def render(self, request: RenderRequest) -> Iterator[RenderEvent]:
        """Render in this process, yielding progress, previews and notices, and last the result.

        Closing the generator cancels between two steps. The model is left as it was, however this ends.

        Raises:
            StudioError: what went wrong, in a sentence.
        """
        resolved = self.check(request)
        _check_words(resolved)
        yield from self._renderer.events(resolved, self.bases.info(resolved.base))

    def run(self, request: RenderRequest) -> RenderResult:
        """Render in this process and return the result; raises as `render`."""
        for event in self.render(request):
            if isinstance(event, Finished):
                return event.result
        raise RenderFailed("The render ended without a result.")

    def submit(self, request: RenderRequest) -> Job:
        """Check a request and queue it for the worker process; raises as `check`."""
        resolved = self.check(request)
        _check_words(resolved)
        return self.jobs.submit("render", resolved.model_dump_json())

    def keep(self, data: bytes) -> str:
        """Store a picture for img2img and return the digest by which a request names it; raises BadFile."""
        return self.gallery.keep(data)

    def warm(self, base: str = "toybox") -> None:
        """Load the libraries and a base ahead of the first request."""
        _ = self._renderer
        self.bases.load(base)

    def _check_adapter(self, use: AdapterUse, base: BaseInfo) -> AdapterUse:
        info = self.library.info(use.name)
        if info.problem:
            raise BadRequest(info.problem)
        if info.family is not None and info.family != base.family:
            raise AdapterMismatch(
                f"The adapter “{shorten(use.name)}” is made for {info.family} "
                f"and the base “{base.name}” is of the family {base.family}; choose another adapter or base.",
                (),
                info.family,
            )
        trigger = info.trigger if use.trigger is None else use.trigger
        if use.hash and info.hash and not info.hash.startswith(use.hash):
            raise BadRequest(
                f"The adapter “{shorten(use.name)}” has another content (hash {info.hash[:12]}) "
                f"than the one asked for ({use.hash[:12]}); leave the hash out to use it all the same."
            )
        return use.model_copy(update={"trigger": trigger, "hash": info.hash and info.hash[:12]})


def _quiet_imports() -> None:
    """Keep the libraries from announcing on import what is optional here (xformers' kernels, torchvision)."""
    for variable in ("TRANSFORMERS_VERBOSITY", "DIFFUSERS_VERBOSITY"):
        os.environ.setdefault(variable, "error")
    logging.getLogger("xformers").setLevel(logging.ERROR)


def resolve(request: RenderRequest, base: BaseInfo) -> RenderRequest:
    """Fill the fields that a request leaves open from the base, and draw a seed.

    Raises:
        UnknownName, BadRequest: a sampler or schedule that does not exist, or that do not go together.
    """
    from pipelines import samplers

    given: dict[str, Any] = {
        name: getattr(base, name)
        for name in ("width", "height", "steps", "guidance", "sampler", "schedule")
        if getattr(request, name) is None
    }
    if request.sampler is not None and request.schedule is None:
        given["schedule"] = "Automatic"
    if request.seed is None:
        given["seed"] = secrets.randbelow(MAX_SEED - request.count)
    filled = request.model_copy(update=given)
    sampler, schedule = samplers.resolve(filled.sampler or "", filled.schedule or "")
    return filled.model_copy(update={"sampler": sampler, "schedule": schedule})


def _check_size(request: RenderRequest, base: BaseInfo) -> None:
    for name, pixels in (("width", request.width), ("height", request.height)):
        assert pixels is not None
        if pixels % base.multiple:
            lower = max(pixels - pixels % base.multiple, base.multiple)
            raise BadRequest(
                f"The {name} {pixels} is not divisible by {base.multiple}; "
                f"the nearest sizes are {lower} and {lower + base.multiple}."
            )
    assert request.seed is not None
    if request.seed + request.count - 1 > MAX_SEED:
        raise BadRequest(f"Seed {request.seed} leaves no room for {request.count} pictures below {MAX_SEED}.")


def _check_method(request: RenderRequest, base: BaseInfo) -> None:
    from pipelines import composer

    method = composer.find(request.method)
    if base.family not in method.families:
        raise BadRequest(
            f"The method {method.title} does not work with {base.title}; it works with: "
            f"{', '.join(sorted(method.families))}."
        )
    composer.options_of(method, request.options)


def _check_pictures(request: RenderRequest, gallery: Gallery) -> None:
    from pipelines import samplers

    if request.mask and not request.image:
        raise BadRequest("A mask needs a picture to go with it.")
    for digest in filter(None, (request.image, request.mask)):
        gallery.kept_path(digest)
    if request.image:
        assert request.steps is not None
        samplers.kept_steps(request.steps, request.strength)


def _check_words(request: RenderRequest) -> None:
    """Whether every adapter's words stand in the prompt; the result is made again where it is used."""
    from pipelines import text

    class Named:
        def __init__(self, use: AdapterUse) -> None:
            self.name, self.words, self.trigger = use.name, use.words, use.trigger or ""

    text.joint(request.prompt, [Named(use) for use in request.adapters])
