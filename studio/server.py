"""HTTP: the typed API under `/api/v1`, behind the same guard as the page.

Submit a request, follow its events as lines of JSON, fetch the pictures by name. Every error is answered as
`{"error": class, "message": one sentence}`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
from pydantic import Field
from starlette.exceptions import HTTPException
from starlette.responses import Response

from studio.errors import BadFile, JobFailed, Refused, StorageFull, StudioError, UnknownJob, shorten
from studio.guard import Guard, GuardMiddleware, refusal
from studio.jobs import Job, Snapshot
from studio.specs import Catalogue, JobEvent, RenderRequest, Spec

if TYPE_CHECKING:
    from studio.engine import Studio

__all__ = ["Guard", "build"]

API = "/api/v1"
ALIVE_SECONDS = 15.0
FOLLOWERS = 200
STATUS = {UnknownJob: 404, Refused: 403, StorageFull: 507, JobFailed: 503}


class Submission(Spec):
    """What to do; more kinds of work join here."""

    kind: Literal["render"] = "render"
    request: RenderRequest


class Line(Spec):
    """One line of a job's event stream; go on after a cut with `?after=number`."""

    number: int
    event: JobEvent


class Trouble(Spec):
    """How every error is answered, and the last line of a stream that breaks."""

    error: str = Field(description="The class of the error.")
    message: str = Field(description="One sentence that names the value and the choices.")


class Kept(Spec):
    """A picture the studio keeps for img2img; requests name it by this digest."""

    digest: str


def build(studio: Studio, guard: Guard) -> FastAPI:
    """The site of one studio without its page, which is mounted behind the same guard."""
    app = FastAPI(title="Studio", docs_url=None, redoc_url=None, openapi_url=f"{API}/openapi.json")
    app.add_middleware(GuardMiddleware, guard=guard)
    app.include_router(_service(studio), prefix=API)
    app.include_router(_jobs(studio), prefix=f"{API}/jobs")
    app.add_api_route("/api/{rest:path}", _nowhere, methods=["GET", "POST", "DELETE"], include_in_schema=False)
    app.add_exception_handler(StudioError, _studio_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _unforeseen)
    return app


def _service(studio: Studio) -> APIRouter:
    router = APIRouter()

    @router.get("/health")
    def health() -> dict[str, str]:
        """Whether the server answers; open without a key."""
        return {"status": "ok"}

    @router.get("/catalogue")
    def catalogue() -> Catalogue:
        """The bases, adapters, methods and samplers there are."""
        return studio.catalogue()

    @router.get("/pictures/{name:path}", response_class=FileResponse)
    def picture(name: str) -> Response:
        """A saved picture, with the request inside."""
        try:
            return FileResponse(studio.gallery.path(name), headers={"Cache-Control": "private, no-cache"})
        except BadFile as error:
            return _answer(404, _trouble(error))

    @router.post("/inputs", status_code=201)
    async def keep(request: Request) -> Kept:
        """Keep a picture (the body, as it is) that requests can start from."""
        return Kept(digest=await to_thread.run_sync(studio.keep, await request.body()))

    return router


def _jobs(studio: Studio) -> APIRouter:
    router = APIRouter()
    # An own pool: every follower holds a thread while it waits, and those of the page must not run out.
    followers = CapacityLimiter(FOLLOWERS)

    @router.post("", status_code=202)
    def submit(submission: Submission, response: Response) -> Snapshot:
        """Queue a render."""
        job = studio.submit(submission.request)
        response.headers["Location"] = f"{API}/jobs/{job.id}"
        return job.latest()

    @router.get("", response_model_exclude={"__all__": {"preview"}})
    def jobs(limit: Annotated[int, Query(ge=1, le=500)] = 50) -> list[Snapshot]:
        """The last jobs, newest first."""
        return [job.latest() for job in studio.jobs.jobs(limit)]

    @router.get("/{id}")
    def status(id: str) -> Snapshot:
        """One job as it is now."""
        return studio.jobs.job(id).latest()

    @router.delete("/{id}")
    def cancel(id: str) -> Snapshot:
        """Cancel a job: at once if it waits, between two steps if it runs."""
        job = studio.jobs.job(id)
        job.cancel()
        return job.latest()

    @router.get("/{id}/events", response_class=StreamingResponse)
    async def events(id: str, after: Annotated[int, Query(ge=0)] = 0, previews: bool = True) -> StreamingResponse:
        """The job's events as lines of JSON (`Line`) to the last one; an empty line only says that all is well."""
        job = await to_thread.run_sync(studio.jobs.job, id)
        lines = _lines(job, after, previews, followers)
        return StreamingResponse(lines, media_type="application/x-ndjson", headers={"Cache-Control": "no-store"})

    return router


async def _lines(job: Job, after: int, previews: bool, limiter: CapacityLimiter) -> AsyncIterator[str]:
    over = False
    while not over:
        try:
            after, events, over = await to_thread.run_sync(
                job.wait, after, ALIVE_SECONDS, limiter=limiter, abandon_on_cancel=True
            )
        except StudioError as error:
            yield _trouble(error).model_dump_json() + "\n"
            return
        for number, event in events:
            if previews or event.kind != "preview":
                yield Line(number=number, event=event).model_dump_json() + "\n"
        if not events:
            yield "\n"


async def _nowhere(rest: str) -> None:
    raise HTTPException(404, f"There is nothing at “/api/{shorten(rest)}”; {API}/openapi.json lists what there is.")


def _trouble(error: StudioError) -> Trouble:
    return Trouble(error=type(error).__name__, message=str(error))


def _answer(status: int, trouble: Trouble) -> JSONResponse:
    return JSONResponse(trouble.model_dump(), status)


async def _studio_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, StudioError)
    status = next((code for kind, code in STATUS.items() if isinstance(error, kind)), 400)
    return _answer(status, _trouble(error))


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first: dict[str, Any] = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"][1:]) or "body"
    message = f"“{field}” = {shorten(repr(first.get('input')))} does not fit: {first['msg']}."
    return _answer(422, Trouble(error="BadRequest", message=message))


async def _http_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return refusal(error)


async def _unforeseen(_: Request, error: Exception) -> JSONResponse:
    return _answer(500, Trouble(error=type(error).__name__, message="Something went wrong here; the log says what."))
