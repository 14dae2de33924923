"""The worker process: the only place where jobs meet torch.

It reads orders from its pipe and answers with events, both as JSON. The pipe is also its lifeline: when the other end
closes, because the studio ended or crashed, the process ends at once.
"""

from __future__ import annotations

import logging
import os
import queue
import signal
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from multiprocessing.connection import Connection
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from studio.errors import BadRequest, StudioError, UnknownName, shorten
from studio.settings import Settings
from studio.specs import Failed, Finished, JobEvent, RenderEvent, RenderRequest, Spec, Stopped

log = logging.getLogger(__name__)

Work = Callable[[str], Generator[JobEvent, None, None]]
"""Takes a job's payload and yields its events, the last one `Finished`; closing it cancels."""


class Run(Spec):
    """An order: do this job."""

    order: Literal["run"] = "run"
    job: str
    kind: str
    payload: str


class Cancel(Spec):
    """An order: stop this job at its next event, if it is the one at hand."""

    order: Literal["cancel"] = "cancel"
    job: str


class Report(Spec):
    """An answer: one event of one job; `leaving` says that the process takes no further order."""

    job: str
    event: JobEvent
    leaving: bool = False


_ORDER: TypeAdapter[Run | Cancel] = TypeAdapter(Annotated[Run | Cancel, Field(discriminator="order")])


def main(connection: Connection, settings: str) -> None:
    """Serve jobs with a `Studio` of these settings (JSON): the entry that the queue starts."""
    from studio.engine import Studio

    studio = Studio(Settings.model_validate_json(settings))

    def render(payload: str) -> Generator[RenderEvent, None, None]:
        try:
            request = RenderRequest.model_validate_json(payload)
        except ValidationError as error:
            raise BadRequest("The job was queued by another version of the studio; send it again.") from error
        yield from studio.render(request)

    serve(connection, {"render": render}, lambda: studio.warm(RenderRequest().base))


def serve(connection: Connection, work: Mapping[str, Work], warm: Callable[[], None] | None = None) -> None:
    """Do the jobs that arrive, one after another, by their kind; `warm` fills the time before the first one.

    Returns after a job failed in a way nobody foresaw: such a process may be damaged (a CUDA error fails every later
    job), so that the queue replaces it.
    """
    # Ctrl-C in a terminal reaches every process of the group; the studio alone decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    desk = _Desk(connection, work)
    if warm is not None and not connection.poll():
        desk.open()
        _warm_up(warm)
    else:
        desk.open()
    while desk.next_job():
        pass


def _warm_up(warm: Callable[[], None]) -> None:
    try:
        warm()
    except StudioError as error:
        log.info("Warming up did nothing: %s", error)
    except Exception:
        # A job that needs the same thing will fail with the reason; one that does not should still run.
        log.exception("Warming up failed.")


class _Desk:
    """The worker's end of the pipe: a thread reads orders, the main thread works and reports."""

    def __init__(self, connection: Connection, work: Mapping[str, Work]) -> None:
        self._connection = connection
        self._work = work
        self._orders: queue.SimpleQueue[Run] = queue.SimpleQueue()
        self._cancelled: str | None = None

    def open(self) -> None:
        threading.Thread(target=self._listen, name="orders", daemon=True).start()

    def next_job(self) -> bool:
        """Wait for a job and do it; False when this process should not go on."""
        run = self._orders.get()
        try:
            self._report(run, self._last_event(run))
        except StudioError as error:
            self._report(run, Failed(error=type(error).__name__, message=str(error)))
        except Exception as error:
            log.exception("Job %s (%s) failed.", run.job, run.kind)
            message = f"Unexpected {type(error).__name__}: {shorten(str(error), 300)}"
            self._report(run, Failed(error=type(error).__name__, message=message), leaving=True)
            return False
        return True

    def _last_event(self, run: Run) -> JobEvent:
        """Report all events of a job but the last, which is returned when the work has cleaned up behind itself."""
        if run.kind not in self._work:
            raise UnknownName("kind of job", run.kind, self._work)
        with closing(self._work[run.kind](run.payload)) as events:
            while self._cancelled != run.job:
                event = next(events, None)
                if event is None:
                    raise RuntimeError(f"A job of kind “{run.kind}” ended without a result.")
                if isinstance(event, Finished):
                    return event
                self._report(run, event)
        return Stopped()

    def _report(self, run: Run, event: JobEvent, leaving: bool = False) -> None:
        try:
            self._connection.send_bytes(Report(job=run.job, event=event, leaving=leaving).model_dump_json().encode())
        except OSError:
            os._exit(1)  # as in `_listen`, only noticed here first

    def _listen(self) -> None:
        try:
            while True:
                order = _ORDER.validate_json(self._connection.recv_bytes())
                if isinstance(order, Cancel):
                    self._cancelled = order.job
                else:
                    self._orders.put(order)
        except (EOFError, OSError):
            # Nobody is there any more to take a result. The main thread may be deep in a kernel call, so no
            # exception would reach it soon; files are written atomically, so nothing is left half done.
            os._exit(1)
