"""The thread that keeps one worker process busy: it starts it, hands it jobs, takes its events, and replaces it."""

from __future__ import annotations

import logging
import multiprocessing
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

from studio.errors import JobFailed, StorageFull
from studio.jobstore import ENDS, JobStore, Record
from studio.specs import Stopped
from studio.worker import Cancel, Report, Run

log = logging.getLogger(__name__)

WORKER_NAME = "studio-worker"
FAREWELL_SECONDS = 3.0
RETRY_SECONDS = 5.0

T = TypeVar("T")
Entry = Callable[[Connection, str], None]


class WorkerGone(Exception):
    """The worker's end of the pipe is closed."""


class Worker:
    """The studio's end of one worker process. `used` tells whether it has ever answered."""

    def __init__(self, entry: Entry, settings: str) -> None:
        # Spawned, not forked: CUDA does not survive a fork, nor do the locks of other threads. Not a daemon, because
        # those may not have children and data loaders do.
        context = multiprocessing.get_context("spawn")
        self._connection, far = context.Pipe()
        self._process = context.Process(target=entry, args=(far, settings), name=WORKER_NAME)
        self._process.start()
        far.close()  # so that the death of the process closes the pipe
        self.used = False

    @property
    def signs(self) -> list[Any]:
        """What to wait on: the pipe, and the process itself (its children may hold the pipe open)."""
        return [self._connection, self._process.sentinel]

    def send(self, order: Run | Cancel) -> None:
        """Give an order; to a dead process it is lost, and `receive` will tell."""
        try:
            self._connection.send_bytes(order.model_dump_json().encode())
        except OSError as error:
            log.info("The worker process does not listen: %s", error)

    def receive(self) -> Report | None:
        """The next event, or None if there is none yet; raises `WorkerGone` behind the last one."""
        alive = self._process.is_alive()  # asked first: a process may report once more and then end
        try:
            if self._connection.poll():
                report = Report.model_validate_json(self._connection.recv_bytes())
                self.used = True
                return report
        except (EOFError, OSError) as error:
            raise WorkerGone from error
        if not alive:
            raise WorkerGone
        return None

    def end(self) -> str:
        """See the process out, by force if it stays; return how it ended, in one sentence."""
        self._connection.close()
        self._process.join(FAREWELL_SECONDS)
        if self._process.exitcode is None:
            self.kill()
        code = self._process.exitcode or 0
        self._process.close()
        if code >= 0:
            return f"The worker process ended with exit code {code}."
        hint = "; too little memory is a frequent cause" if -code == signal.SIGKILL else ""
        return f"The worker process was ended by signal {-code} ({signal.strsignal(-code)}){hint}."

    def kill(self) -> None:
        """End the process now."""
        self._process.kill()
        self._process.join()


class Supervisor:
    """Runs the queued jobs of a store, oldest first, until `close`. `cancel` and `ring` may come from any thread."""

    def __init__(self, store: JobStore, start: Callable[[], Worker], *, grace: float, keep: int) -> None:
        self._store, self._start, self._grace, self._keep = store, start, grace, keep
        self._lock = threading.Lock()
        self._ear, self._bell = multiprocessing.Pipe(duplex=False)
        self._rung = self._closing = False
        self._cancelled: set[str] = set()
        # Below: touched by the thread alone.
        self._worker: Worker | None = None
        self._job: Record | None = None
        self._deadline: float | None = None
        self._thread = threading.Thread(target=self._run, name="jobs", daemon=True)
        self._thread.start()

    def ring(self) -> None:
        """Make the thread look up: there is a new job or order."""
        with self._lock:
            if not self._rung:  # one ring is enough, and a full pipe would block the caller
                self._rung = True
                self._bell.send_bytes(b"!")

    def cancel(self, id: str) -> None:
        """Ask for the end of the running job of this id; without effect on any other."""
        with self._lock:
            self._cancelled.add(id)
        self.ring()

    def close(self) -> None:
        """End the worker; a running job goes back to its place in the line."""
        self._closing = True
        self.ring()
        self._thread.join()

    def _run(self) -> None:
        try:
            self._worker = self._start()
            while not self._closing:
                self._hand_out()
                self._press_cancel()
                ready = wait([self._ear, *(self._worker.signs if self._worker else [])], self._patience())
                if self._ear in ready:
                    self._heed_bell()
                self._listen()
            if self._job:
                self._store.put_back(self._job)
        except Exception as error:
            # Without this thread no job would ever end, so whoever waits for one is told instead.
            log.exception("The queue stops.")
            message = f"The queue stopped ({type(error).__name__}: {error}); start the studio again."
            self._store.abandon(lambda: JobFailed(message))
        finally:
            if self._worker:
                self._worker.end()

    def _insist(self, write: Callable[[], T]) -> T | None:
        """Repeat a write until the disk takes it, so that no event is lost; None only when the queue is closed."""
        while not self._closing:
            try:
                return write()
            except StorageFull as error:
                log.error("%s It is tried again in %g seconds.", error, RETRY_SECONDS)
                if wait([self._ear], RETRY_SECONDS):
                    self._heed_bell()
        return None

    def _heed_bell(self) -> None:
        with self._lock:
            self._ear.recv_bytes()
            self._rung = False

    def _hand_out(self) -> None:
        if self._job is None and (job := self._insist(self._store.begin_next)):
            self._job = job
            self._worker = self._worker or self._start()
            self._worker.send(Run(job=job.id, kind=job.kind, payload=job.payload))

    def _asked_to_cancel(self, job: Record) -> bool:
        with self._lock:
            return job.id in self._cancelled

    def _press_cancel(self) -> None:
        """Pass a cancel on to the worker, and replace a worker that has not heeded it in time."""
        job, worker = self._job, self._worker
        if job is None or worker is None:
            return
        if self._deadline is None and self._asked_to_cancel(job):
            self._deadline = time.monotonic() + self._grace
            worker.send(Cancel(job=job.id))
        elif self._deadline is not None and time.monotonic() >= self._deadline:
            log.warning("The worker did not heed a cancel for %g seconds and is replaced.", self._grace)
            worker.kill()

    def _patience(self) -> float | None:
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def _listen(self) -> None:
        if self._worker is None:
            return
        try:
            report = self._worker.receive()
        except WorkerGone:
            self._bury(self._worker)
            return
        job = self._job
        if report is None or job is None or report.job != job.id:
            return
        self._insist(lambda: self._store.append(job, report.event))
        if report.event.kind in ENDS:
            self._job = self._deadline = None
            with self._lock:
                self._cancelled.discard(job.id)
            self._insist(lambda: self._store.prune(self._keep))
        if report.leaving:
            self._bury(self._worker)

    def _bury(self, worker: Worker) -> None:
        how, job = worker.end(), self._job
        log.info("%s", how)
        self._worker = self._job = self._deadline = None
        if job and self._asked_to_cancel(job):
            self._insist(lambda: self._store.append(job, Stopped()))
        elif job:
            self._insist(lambda: self._store.cut_short(job, how))
        # Have the next one warm. But not after one that died before it ever worked: if warming up is what kills it,
        # that would go on for ever, while the two attempts of a job are soon used up.
        if job or worker.used:
            self._worker = self._start()
