"""What can go wrong below the application; the whole tree is drawn in `studio/errors.py`.

Kept free of torch, so that the application can catch these without loading it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class StudioError(Exception):
    """Anything the user can be told in one sentence; `str(error)` is that sentence."""


class BadRequest(StudioError):
    """A value in a request is not usable."""


class UnknownName(BadRequest):
    """A name that is not among the choices; the message lists them, the closest first."""

    def __init__(self, kind: str, name: str, choices: Iterable[str]) -> None:
        known = sorted(choices)
        close = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
        ordered = [*close, *(choice for choice in known if choice not in close)]
        shown = ", ".join(ordered[:12]) + (f" and {len(ordered) - 12} more" if len(ordered) > 12 else "")
        super().__init__(f"Unknown {kind} “{shorten(name)}”; choose one of: {shown or 'none are installed'}.")
        self.kind, self.name, self.choices = kind, name, tuple(known)


class BadFile(StudioError):
    """A file that cannot be used: missing, truncated, hostile, or not what its name says."""


class UnsafeFile(BadFile):
    """A file format that can run code when it is opened, which this project never does."""


class AdapterMismatch(BadFile):
    """An adapter file whose weights do not all find their layer in the chosen base."""

    def __init__(self, message: str, keys: Iterable[str] = (), family: str | None = None) -> None:
        super().__init__(message)
        self.keys, self.family = tuple(keys), family


class RenderFailed(StudioError):
    """Sampling ran, but there is no picture to show for it (not-a-number values, out of memory)."""


def shorten(text: str, limit: int = 80) -> str:
    """Cut a value for an error message to `limit` characters."""
    return text if len(text) <= limit else text[: limit - 1] + "…"
