"""A worker without torch: the same loop as the real one, with jobs that wait, crash, hang or fail on command.

A job that waits opens a FIFO for reading, which blocks until a test opens it for writing: no sleeping, no guessing.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path

from studio.errors import BadRequest
from studio.jobs import Job, Queue
from studio.specs import Finished, JobEvent, Notice, Preview, Progress, RenderRequest, RenderResult
from studio.worker import serve

ENTRY = f"{__name__}:main"
PATIENCE = 20.0  # seconds until a test gives up
Open = Callable[..., Queue]


def result(payload: str) -> RenderResult:
    """A result that can be told from every other by its prompt."""
    request = RenderRequest(prompt=payload)
    return RenderResult(request=request, pictures=(), seconds=0, sampling_seconds=0, rows=0)


def draw(payload: str) -> Iterator[JobEvent]:
    """Four steps with previews, then a result that carries the payload."""
    for step in range(1, 5):
        yield Progress(phase="sampling", step=step, total=4)
        yield Preview(step=step, images=(bytes([step]),))
    yield Finished(result=result(payload))


def hold(payload: str) -> Iterator[JobEvent]:
    """Tell the process id, then wait for the FIFO named by the payload."""
    try:
        yield Preview(step=0, images=(b"first",))
        yield Notice(text=f"pid {os.getpid()}")
        Path(payload).read_bytes()
        yield Progress(phase="sampling", step=1, total=1)
        yield Finished(result=result(payload))
    finally:
        Path(payload).with_suffix(".closed").touch()


def endless(payload: str) -> Iterator[JobEvent]:
    """Go on until cancelled; leave the file named by the payload behind."""
    try:
        yield Notice(text=f"pid {os.getpid()}")
        while True:
            yield Progress(phase="sampling")
    finally:
        Path(payload).touch()


def talk(payload: str) -> Iterator[JobEvent]:
    """Say something short, wait for the FIFO, say something long."""
    yield Notice(text="hush")
    Path(payload).read_bytes()
    yield Notice(text="x" * 200_000)
    yield Finished(result=result(payload))


def crash(payload: str) -> Iterator[JobEvent]:
    """Die without a word, as often as the payload says; the count is kept in the file it names."""
    times, _, counter = payload.partition(" ")
    deaths = len(Path(counter).read_bytes())
    if deaths < int(times):
        Path(counter).write_bytes(b"x" * (deaths + 1))
        yield Progress(phase="loading")
        os.kill(os.getpid(), signal.SIGKILL)
    yield Finished(result=result(payload))


def refuse(payload: str) -> Iterator[JobEvent]:
    """Fail with a sentence for the user."""
    yield Progress(phase="loading")
    raise BadRequest(f"No “{payload}” here.")


def surprise(payload: str) -> Iterator[JobEvent]:
    """Fail in a way nobody foresaw."""
    yield Notice(text=f"pid {os.getpid()}")
    raise ZeroDivisionError(payload)


def mute(payload: str) -> Iterator[JobEvent]:
    """End without a result, which is against the rules."""
    yield Notice(text=payload)


WORK = (draw, hold, endless, talk, crash, refuse, surprise, mute)


def main(connection: Connection, settings: str) -> None:
    """The entry for `Queue`."""
    serve(connection, {work.__name__: work for work in WORK})


def broken(connection: Connection, settings: str) -> None:
    """An entry that never gets to work."""
    raise SystemExit(3)


def cold(connection: Connection, settings: str) -> None:
    """An entry whose warming up fails."""

    def warm() -> None:
        raise ZeroDivisionError("warm")

    serve(connection, {"draw": draw}, warm)


# ---- for the tests' side ---------------------------------------------------------------------------------------------


def kinds(job: Job) -> list[str]:
    """The job's events by kind, to the last."""
    return [event.kind for event in job.events()]


def worker_of(job: Job, seen: int = 0) -> int:
    """Wait until the job tells the process it runs in, after event number `seen`."""
    for event in job.events(seen):
        if isinstance(event, Notice) and (found := re.fullmatch(r"pid (\d+)", event.text)):
            return int(found[1])
    raise AssertionError("the job ended without telling its process")
