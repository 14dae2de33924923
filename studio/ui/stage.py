"""What stands where the picture will be: an invitation, the running job, or one sentence about how it ended."""

from __future__ import annotations

import base64
import time
from dataclasses import dataclass, field
from html import escape

from studio.specs import JobEvent, Preview, Progress, RenderResult
from studio.ui.strings import duration, say

PREVIEW_SECONDS = 0.4  # where the browser has no graphics card, painting takes the core that sampling needs


def invitation() -> str:
    """HTML of the empty stage."""
    return (
        '<div class="stage stage-empty"><div class="stage-mark" aria-hidden="true"><i></i><i></i><i></i></div>'
        f"<h3>{escape(say('empty_title'))}</h3><p>{escape(say('empty_text'))}</p></div>"
    )


def working(progress: Progress | None, preview: Preview | None) -> str:
    """HTML of a job that is waiting (no progress yet) or at work."""
    share = progress.step / progress.total if progress and progress.total else 0.0
    unsure = not (progress and progress.phase == "sampling" and progress.total)
    left = progress.left if progress else None
    note = f"<span>{escape(say('left', time=duration(left)))}</span>" if left is not None else ""
    percent = "" if unsure else f' aria-valuenow="{share * 100:.0f}"'
    return (
        f'<div class="stage stage-busy">{_pictures(preview)}<div class="stage-line"><span>{escape(_doing(progress))}'
        f'</span>{note}</div><div class="bar{" bar-unsure" if unsure else ""}" role="progressbar" aria-valuemin="0" '
        f'aria-valuemax="100"{percent}><div style="width:{share * 100:.1f}%"></div></div></div>'
    )


def _doing(progress: Progress | None) -> str:
    if progress is None:
        return say("queued")
    if progress.phase != "sampling":
        return say(progress.phase)
    return say("sampling", step=progress.step, total=progress.total)


def _pictures(preview: Preview | None) -> str:
    if preview is None or not preview.images:
        return '<div class="previews previews-none"></div>'
    many = " previews-many" if len(preview.images) > 1 else ""
    # decoding=sync: otherwise each new preview blinks
    images = "".join(
        f'<img decoding="sync" alt="{escape(say("preview_alt", number=number))}" '
        f'src="data:image/jpeg;base64,{base64.b64encode(data).decode()}">'
        for number, data in enumerate(preview.images, 1)
    )
    return f'<div class="previews{many}">{images}</div>'


def note(*sentences: str) -> str:
    """HTML of a plain remark; empty for none."""
    return _line("note", "status", sentences)


def problem(*sentences: str) -> str:
    """HTML of what went wrong, read out by screen readers at once."""
    return _line("problem", "alert", sentences)


def _line(kind: str, role: str, sentences: tuple[str, ...]) -> str:
    shown = "".join(f"<p>{escape(sentence)}</p>" for sentence in sentences if sentence)
    return f'<div class="line line-{kind}" role="{role}">{shown}</div>' if shown else ""


def outcome(result: RenderResult) -> str:
    """HTML of the sentence under a finished result, with its notices."""
    parts = [say("done", time=duration(result.seconds))]
    if result.pictures:
        parts.append(say("done_seed", seed=result.pictures[0].seed))
    return note(" · ".join(parts), *result.notices)


@dataclass
class Pace:
    """Lets previews and steps through a few times a second, and a new phase always, so that no line is stale."""

    phase: str = ""
    last: dict[str, float] = field(default_factory=dict)

    def lets(self, event: JobEvent, now: float | None = None) -> bool:
        """Whether this event should reach the page at `now` (seconds, monotonic)."""
        now = time.monotonic() if now is None else now
        if isinstance(event, Progress) and event.phase != self.phase:
            self.phase = event.phase
        elif now - self.last.get(event.kind, -PREVIEW_SECONDS) < PREVIEW_SECONDS:
            return False
        self.last[event.kind] = now
        return True
