"""What the queue remembers: jobs and their events in SQLite, the newest preview in memory, and who waits for news.

Safe to use from any thread: one connection, one lock. Every event of a job takes the next number, previews too, but
only the newest preview is kept (in memory, while its job runs); all other events can be replayed after any number.
"""

from __future__ import annotations

import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from studio import database
from studio.errors import StorageFull, StudioError, UnknownJob
from studio.specs import Failed, JobEvent, JobState, Notice, Preview, Stopped

MAX_ATTEMPTS = 2
ENDS: dict[str, JobState] = {"finished": "done", "failed": "failed", "stopped": "cancelled"}
OVER = frozenset(ENDS.values())

_EVENT: TypeAdapter[JobEvent] = TypeAdapter(JobEvent)


@dataclass(frozen=True)
class Record:
    """One row of the table of jobs; `number` is its place in the line, `last` the number of its newest event."""

    number: int
    id: str
    kind: str
    payload: str
    state: JobState
    attempts: int
    last: int
    created: float


class JobStore:
    """The table of jobs. Every method raises `StorageFull` when the database cannot be written.

    After `abandon` every method raises the error given there, also in threads that wait at that moment.
    """

    def __init__(self, path: Path) -> None:
        self._connection = database.connect(path)
        self._changed = threading.Condition()
        self._previews: dict[int, tuple[int, Preview]] = {}
        self._abandoned: Callable[[], StudioError] | None = None

    def add(self, kind: str, payload: str) -> Record:
        """Append a job to the line; its id cannot be guessed."""
        id = secrets.token_hex(16)
        with self._writing():
            self._execute(
                "INSERT INTO jobs (id, kind, payload, state, created) VALUES (?, ?, ?, 'queued', ?)",
                (id, kind, payload, time.time()),
            )
        return self.get(id)

    def get(self, id: str) -> Record:
        """The job of this id; raises `UnknownJob`."""
        with self._reading():
            row = self._execute("SELECT * FROM jobs WHERE id = ?", (id,)).fetchone()
        if row is None:
            raise UnknownJob(id)
        return Record(**row)

    def newest(self, limit: int) -> list[Record]:
        """The last `limit` jobs, newest first."""
        with self._reading():
            return self._records("SELECT * FROM jobs ORDER BY number DESC LIMIT ?", (limit,))

    def ahead(self, record: Record) -> int:
        """How many unfinished jobs stand before this one in the line."""
        with self._reading():
            query = "SELECT count(*) FROM jobs WHERE state IN ('queued', 'running') AND number < ?"
            return int(self._execute(query, (record.number,)).fetchone()[0])

    def begin_next(self) -> Record | None:
        """Mark the oldest queued job as running and count the attempt; None when nothing is queued."""
        with self._writing():
            rows = self._records(
                "UPDATE jobs SET state = 'running', attempts = attempts + 1 WHERE number ="
                " (SELECT min(number) FROM jobs WHERE state = 'queued') RETURNING *",
            )
        return rows[0] if rows else None

    def append(self, record: Record, event: JobEvent, state: JobState | None = None) -> None:
        """Give the event the job's next number and keep it; a last event (see `ENDS`) also ends the job."""
        state = ENDS.get(event.kind, state)
        with self._writing():
            update = "UPDATE jobs SET last = last + 1, state = coalesce(?, state) WHERE number = ? RETURNING last"
            number = int(self._execute(update, (state, record.number)).fetchone()[0])
            if isinstance(event, Preview):
                self._previews[record.number] = (number, event)
                return
            row = (record.number, number, event.kind, event.model_dump_json())
            self._execute("INSERT INTO events (job, number, kind, event) VALUES (?, ?, ?, ?)", row)
            if state:
                self._previews.pop(record.number, None)

    def cancel_queued(self, id: str) -> bool:
        """End the job if it has not begun; False when it runs or is over."""
        with self._changed:
            record = self.get(id)
            if record.state != "queued":
                return False
            self.append(record, Stopped())
            return True

    def cut_short(self, record: Record, reason: str) -> None:
        """The process under a running job is gone: put the job back to its place, or fail it at the second time."""
        if record.attempts < MAX_ATTEMPTS:
            self.append(record, Notice(text=f"{reason} The job starts again."), "queued")
        else:
            message = f"{reason} It was the second try, so the job was given up."
            self.append(record, Failed(error="JobFailed", message=message))

    def put_back(self, record: Record) -> None:
        """Return a running job to its place in the line as if it had not begun (the studio is being closed)."""
        with self._writing():
            put = "UPDATE jobs SET state = 'queued', attempts = attempts - 1 WHERE number = ? AND state = 'running'"
            self._execute(put, (record.number,))

    def running(self) -> list[Record]:
        """Jobs marked as running; at the start of a studio these are what a crash left behind."""
        with self._reading():
            return self._records("SELECT * FROM jobs WHERE state = 'running' ORDER BY number")

    def prune(self, keep: int) -> None:
        """Forget ended jobs, with their events, except the newest `keep`."""
        with self._writing():
            ended = "SELECT number FROM jobs WHERE state IN ('done', 'failed', 'cancelled')"
            self._execute(f"DELETE FROM jobs WHERE number IN ({ended} ORDER BY number DESC LIMIT -1 OFFSET ?)", (keep,))

    def events(self, record: Record, after: int = 0, kind: str | None = None) -> list[tuple[int, JobEvent]]:
        """Events with a number above `after`, in order, optionally of one kind; the kept preview among them."""
        with self._reading():
            query = "SELECT number, event FROM events WHERE job = ? AND number > ? AND kind = coalesce(?, kind)"
            rows = self._execute(query + " ORDER BY number", (record.number, after, kind)).fetchall()
            preview = self._previews.get(record.number)
        found = [(int(row["number"]), _EVENT.validate_json(row["event"])) for row in rows]
        if preview and preview[0] > after and kind in {None, "preview"}:
            found = sorted([*found, preview], key=lambda pair: pair[0])
        return found

    def newest_event(self, record: Record, kind: str) -> JobEvent | None:
        """The last event of this kind, or None."""
        with self._reading():
            if kind == "preview":
                return self._previews[record.number][1] if record.number in self._previews else None
            query = "SELECT event FROM events WHERE job = ? AND kind = ? ORDER BY number DESC LIMIT 1"
            row = self._execute(query, (record.number, kind)).fetchone()
        return _EVENT.validate_json(row["event"]) if row else None

    def still(self) -> threading.Condition:
        """A context in which nothing changes, to read several things as of one moment."""
        return self._changed

    def wait(self, id: str, until: Callable[[Record], bool], timeout: float | None = None) -> Record:
        """Block until the job satisfies `until` or `timeout` seconds have passed; return it as it is then."""
        with self._changed:
            self._changed.wait_for(lambda: until(self.get(id)), timeout)
            return self.get(id)

    def news(self, id: str, after: int, timeout: float | None = None) -> tuple[Record, list[tuple[int, JobEvent]]]:
        """Block until there is something after `after`, or nothing more to come; return both as of one moment.

        The list may be empty although `last` has moved on: previews are forgotten.
        """
        with self._changed:
            record = self.wait(id, lambda record: record.last > after or record.state in OVER, timeout)
            return record, self.events(record, after)

    def abandon(self, error: Callable[[], StudioError]) -> None:
        """Close the database; from now on, and in everyone who waits, `error()` is raised."""
        with self._changed:
            if self._abandoned is None:
                self._abandoned = error
                self._connection.close()
                self._changed.notify_all()

    @contextmanager
    def _reading(self) -> Iterator[None]:
        with self._changed:
            if self._abandoned is not None:
                raise self._abandoned()
            try:
                yield
            except sqlite3.OperationalError as error:
                raise StorageFull(f"The database of jobs cannot be used: {error}.") from error

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with self._reading():
            self._execute("BEGIN IMMEDIATE")
            try:
                yield
                self._execute("COMMIT")
            except BaseException:
                # A full disk has already rolled back by itself; then there is nothing left to undo.
                if self._connection.in_transaction:
                    self._execute("ROLLBACK")
                raise
            self._changed.notify_all()

    def _execute(self, statement: str, values: tuple[Any, ...] = ()) -> sqlite3.Cursor:
        return self._connection.execute(statement, values)

    def _records(self, query: str, values: tuple[Any, ...] = ()) -> list[Record]:
        return [Record(**row) for row in self._execute(query, values).fetchall()]
