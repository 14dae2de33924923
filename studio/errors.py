"""Every error a user can meet; each is one clear sentence that names the value and the choices.

    StudioError
    ├── BadRequest            a value in a request or a flag
    │   ├── UnknownName       a name that is not among the choices (base, method, sampler, adapter ...)
    │   └── UnknownJob        no job has this id; the choices are not told, for an id is a secret
    ├── BadFile               missing, truncated, hostile, or not what it says
    │   ├── UnsafeFile        a pickle or another format that can run code
    │   └── AdapterMismatch   an adapter whose weights find no layer, or another family's
    ├── RenderFailed          sampling gave no picture (not-a-number values, out of memory)
    ├── StorageFull           the disk is full or cannot be written
    ├── DownloadFailed        a base could not be fetched
    ├── JobFailed             a job ended with an error; carries the error's own sentence
    └── Refused               not allowed from here (address, key, origin)

The first three and RenderFailed are raised below the application and live in `pipelines/errors.py`.
"""

from __future__ import annotations

from pipelines.errors import (
    AdapterMismatch,
    BadFile,
    BadRequest,
    RenderFailed,
    StudioError,
    UnknownName,
    UnsafeFile,
    shorten,
)

__all__ = [
    "AdapterMismatch",
    "BadFile",
    "BadRequest",
    "DownloadFailed",
    "JobFailed",
    "Refused",
    "RenderFailed",
    "StorageFull",
    "StudioError",
    "UnknownJob",
    "UnknownName",
    "UnsafeFile",
    "shorten",
]


class UnknownJob(BadRequest):
    """No job has this id (any more)."""

    def __init__(self, id: str) -> None:
        super().__init__(f"There is no job “{shorten(id)}”; jobs that ended long ago are forgotten.")


class StorageFull(StudioError):
    """A file could not be written; what was there before is untouched."""


class DownloadFailed(StudioError):
    """A base could not be fetched; what has arrived so far is kept for the next try."""


class JobFailed(StudioError):
    """A job ended with an error; `kind` is the class name of the original."""

    def __init__(self, message: str, kind: str = "StudioError") -> None:
        super().__init__(message)
        self.kind = kind


class Refused(StudioError):
    """The caller may not do this from where it is (host, origin or key)."""
