"""The queue: jobs that outlive the page, the worker process, and the studio itself.

A job whose worker process or studio died comes back once; the second time it fails with the reason. One data folder
has one queue: a second studio on it is refused.
"""

from __future__ import annotations

import atexit
import multiprocessing
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from filelock import FileLock, Timeout

from studio.errors import BadRequest, JobFailed, StorageFull
from studio.jobstore import OVER, JobStore, Record
from studio.settings import Settings
from studio.specs import (
    Failed,
    Finished,
    JobEvent,
    JobState,
    Notice,
    Preview,
    Progress,
    RenderResult,
    Spec,
    Stopped,
)
from studio.supervisor import WORKER_NAME, Supervisor, Worker

ENTRY = "studio.worker:main"
GRACE_SECONDS = 20.0
KEEP = 500


class Snapshot(Spec):
    """A job at one moment: enough to draw it again after a page reload."""

    id: str
    kind: str
    state: JobState
    attempts: int
    created: float
    ahead: int
    number: int
    progress: Progress | None = None
    preview: Preview | None = None
    notices: tuple[str, ...] = ()
    result: RenderResult | None = None
    error: Failed | None = None


@dataclass(frozen=True)
class Job:
    """A handle on one queued, running or ended job; cheap, and good in any thread."""

    id: str
    kind: str
    payload: str
    _queue: Queue = field(repr=False, compare=False)

    @property
    def state(self) -> JobState:
        """Where the job stands now."""
        return self._queue.store.get(self.id).state

    @property
    def error(self) -> str | None:
        """Why the job failed, in one sentence; None if it did not."""
        failed = self.latest().error
        return failed.message if failed else None

    def latest(self) -> Snapshot:
        """The job as it is now."""
        return self._queue.snapshot(self.id)

    def cancel(self) -> None:
        """End the job: at once if it waits, at its next event if it runs; nothing if it is over."""
        self._queue.cancel(self.id)

    def wait(self, after: int = 0, timeout: float | None = None) -> tuple[int, list[tuple[int, JobEvent]], bool]:
        """Block until there are events after number `after` (or `timeout` seconds have passed).

        Returns the number to go on from, the new events with their numbers, and whether they are the last ones.
        """
        record, events = self._queue.store.news(self.id, after, timeout)
        return record.last, events, record.state in OVER

    def events(self, after: int = 0) -> Iterator[JobEvent]:
        """All events after number `after`, past ones first, then each as it comes, up to the last.

        Of the previews only the newest is replayed.
        """
        over = False
        while not over:
            after, events, over = self.wait(after)
            for _, event in events:
                yield event

    def result(self, timeout: float | None = None) -> RenderResult:
        """Wait for the end and return what the job gave.

        Raises:
            JobFailed: the job failed or was cancelled (kind "Stopped").
            TimeoutError: it is not over after `timeout` seconds.
        """
        record = self._queue.store.wait(self.id, lambda record: record.state in OVER, timeout)
        if record.state not in OVER:
            raise TimeoutError(f"Job “{self.id}” is not over after {timeout:g} seconds.")
        now = self.latest()
        if now.result is not None:
            return now.result
        if now.error is not None:
            raise JobFailed(now.error.message, now.error.error)
        raise JobFailed("The job was cancelled.", Stopped.__name__)


class Queue:
    """The jobs of one data folder and the one worker process that does them, in the order they came.

    `entry` names the worker's main function (module:function, called with its pipe and the settings as JSON); `grace`
    is how many seconds a running job may take to heed a cancel before its process is replaced; `keep` how many ended
    jobs are remembered.
    """

    def __init__(
        self,
        path: Path,
        settings: Settings,
        *,
        entry: str = ENTRY,
        grace: float = GRACE_SECONDS,
        keep: int = KEEP,
    ) -> None:
        if multiprocessing.current_process().name == WORKER_NAME:
            raise BadRequest(
                'A script that queues jobs does so under `if __name__ == "__main__":`, '
                "because the worker process imports the script."
            )
        self._lock = _claim(path)
        try:
            self.store = JobStore(path)
            for record in self.store.running():
                self.store.cut_short(record, "The studio ended during this job.")
            self.store.prune(keep)
            start = partial(Worker, pkgutil.resolve_name(entry), settings.model_dump_json())
            self._supervisor = Supervisor(self.store, start, grace=grace, keep=keep)
        except BaseException:
            self._lock.release()
            raise
        # A worker is no daemon (see Worker), so the interpreter would wait for it on exit without end.
        atexit.register(self.close)

    def submit(self, kind: str, payload: str) -> Job:
        """Append a job; `payload` is the JSON its kind of work takes."""
        record = self.store.add(kind, payload)
        self._supervisor.ring()
        return self._job(record)

    def job(self, id: str) -> Job:
        """The job of this id; raises `UnknownJob`."""
        return self._job(self.store.get(id))

    def jobs(self, limit: int = 100) -> list[Job]:
        """The last jobs, newest first."""
        return [self._job(record) for record in self.store.newest(limit)]

    def cancel(self, id: str) -> None:
        """As `Job.cancel`; raises `UnknownJob`."""
        if not self.store.cancel_queued(id) and self.store.get(id).state == "running":
            self._supervisor.cancel(id)

    def snapshot(self, id: str) -> Snapshot:
        """As `Job.latest`; raises `UnknownJob`."""
        with self.store.still():
            record = self.store.get(id)
            notices = [event for _, event in self.store.events(record, kind="notice")]
            progress, preview, result, error = (
                self.store.newest_event(record, kind) for kind in ("progress", "preview", "finished", "failed")
            )
            ahead = 0 if record.state in OVER else self.store.ahead(record)
        return Snapshot(
            **{name: getattr(record, name) for name in ("id", "kind", "state", "attempts", "created")},
            ahead=ahead,
            number=record.last,
            progress=progress if isinstance(progress, Progress) else None,
            preview=preview if isinstance(preview, Preview) else None,
            notices=tuple(event.text for event in notices if isinstance(event, Notice)),
            result=result.result if isinstance(result, Finished) else None,
            error=error if isinstance(error, Failed) else None,
        )

    def close(self) -> None:
        """End the worker and let go of the data folder; a running job starts again with the next studio."""
        atexit.unregister(self.close)
        self._supervisor.close()
        self.store.abandon(_closed)
        self._lock.release()

    def _job(self, record: Record) -> Job:
        return Job(record.id, record.kind, record.payload, self)


def _claim(path: Path) -> FileLock:
    """Hold the data folder for this process; the system lets go of it when the process ends, however it ends."""
    lock = FileLock(path.with_suffix(".lock"), thread_local=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise BadRequest(
            f"Another studio is using the data folder “{path.parent}”; close it, or choose another --data-dir."
        ) from error
    except OSError as error:
        raise StorageFull(f"The data folder “{path.parent}” cannot be written: {error}.") from error
    return lock


def _closed() -> JobFailed:
    return JobFailed("The studio was closed; its unfinished jobs go on when it is started again.", "Closed")
