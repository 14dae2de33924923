"""Every sentence the page shows, in one table; a translation is another table with the same keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

ENGLISH: Final[Mapping[str, str]] = {
    "title": "Composition Studio",
    "tagline": "Several LoRAs, one picture.",
    "serving": "The page is at {address}",
    "cannot_listen": "The address {host}, port {port} cannot be used: {why}; choose another with --port or --listen.",
    # prompt
    "prompt": "Prompt",
    "first_prompt": "a purple boat in the meadow",
    "prompt_hint": "What should be in the picture?",
    "negative": "Negative prompt",
    "negative_hint": "What should stay away?",
    "words": "Words this base knows",
    "words_hint": "Click a word to put it into the prompt.",
    "unknown": "Not among the words this base knows:",
    "words.classes": "things",
    "words.colours": "colours",
    "words.backgrounds": "places",
    "words.relations": "relations",
    "words.openings": "openings",
    "words.portrait": "portrait",
    "words.numbers": "numbers",
    "words.joining": "small words",
    "maybe": "{word} → {close}?",
    # buttons
    "render": "Render",
    "cancel": "Cancel",
    "cancelling": "Stopping…",
    "use": "Use these settings",
    "reuse_seed": "Reuse seed",
    "new_seed": "Random",
    "refresh": "Refresh",
    # groups of settings
    "base": "Base",
    "adapters": "Adapters",
    "picture": "Start from a picture",
    "settings": "Settings",
    "more": "More settings",
    "method": "Method",
    "options": "Options of {title}",
    "seed": "Seed",
    "seed_hint": "new each time",
    "count": "Pictures",
    "steps": "Steps",
    "guidance": "Guidance",
    "guidance_rescale": "Guidance rescale",
    "guidance_rescale_info": "Pulls over-bright guidance back (0.7 for zero-SNR bases).",
    "width": "Width",
    "height": "Height",
    "sampler": "Sampler",
    "schedule": "Schedule",
    "vae": "VAE",
    "vae_own": "The base's own",
    "clip_skip": "Clip skip",
    "clip_skip_info": "Text-encoder layers from the end; 1 uses all.",
    "strength": "Strength",
    "strength_info": "How much of the picture is redrawn.",
    # recall
    "recall": "Settings from a picture",
    "recall_hint": "Drop a PNG made here or in A1111: it fills the form and loads nothing.",
    "recalled": "The form now holds the settings of this picture.",
    "recall_choice": "{label} “{name}” is not among the choices here and was left as it was.",
    "recall_adapter": "The adapter “{name}” is not in the library.",
    "recall_picture": "The picture this was made from is no longer kept here.",
    # stage
    "result": "Result",
    "recent": "Recent pictures",
    "details": "How it was made",
    "report": "Report of the method",
    "empty_title": "Your picture appears here",
    "empty_text": "A prompt is already filled in. Press Render.",
    "queued": "Waiting for its turn",
    "loading": "Loading the base",
    "sampling": "Step {step} of {total}",
    "saving": "Saving",
    "left": "{time} left",
    "done": "Done in {time}",
    "done_seed": "seed {seed}",
    "stopped": "Stopped. Nothing was saved.",
    "caption": "seed {seed}",
    "preview_alt": "Preview of picture {number}",
    "no_base": "No base can be used: the files of Toybox are missing and no other base is installed.",
    "job_gone": "That job is no longer known here.",
    "shown": "Picture {name}",
    # bad values
    "misfit": "{label} = {value} does not fit: {why}.",
    "not_number": "{label} = “{value}” is not a number.",
    "not_json": "{label} = “{value}” is not JSON: {why}.",
    "too_large": "This file has {size} MB; at most {limit} MB are taken.",
    "not_picture": "This is not a picture the page can take.",
    # adapter rows (read by assets/rows.js)
    "rows.add": "Add adapter",
    "rows.none": "No adapters yet: the base draws alone.",
    "rows.empty": "No adapter files found. Put .safetensors files into the adapters folder of your data folder.",
    "rows.adapter": "Adapter",
    "rows.weight": "Weight",
    "rows.more": "More",
    "rows.remove": "Remove",
    "rows.words": "Its words in the prompt",
    "rows.words_hint": "cat, dog#2",
    "rows.trigger": "Trigger word",
    "rows.trigger_hint": "as the library knows it",
    "rows.text_weight": "Weight in the text encoder",
    "rows.text_weight_hint": "as weight",
    "rows.other": "Not for this base",
    "rows.missing": "{name} (not in the library)",
    # picture and mask (read by assets/painter.js)
    "paint.choose": "Drop a picture here, or click to choose one",
    "paint.clear": "Remove picture",
    "paint.wipe": "Clear mask",
    "paint.brush": "Brush",
    "paint.hint": "Paint over the part that should be redrawn; paint nothing to redraw all of it.",
    "paint.failed": "The picture could not be sent.",
}


def say(key: str, **values: object) -> str:
    """The sentence under `key` with its gaps filled; KeyError if there is none."""
    return ENGLISH[key].format(**values) if values else ENGLISH[key]


def section(prefix: str) -> dict[str, str]:
    """The sentences a script reads: those under `prefix.`, without the prefix."""
    return {key.removeprefix(f"{prefix}."): text for key, text in ENGLISH.items() if key.startswith(f"{prefix}.")}


def duration(seconds: float) -> str:
    """Seconds as people say them: “0.8 s”, “12 s”, “2 min 05 s”."""
    if seconds < 9.95:
        return f"{max(seconds, 0):.1f} s"
    whole = round(seconds)
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60:02d} s"
