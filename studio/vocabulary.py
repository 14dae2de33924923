"""The words a small base knows, and which words of a prompt it does not; free of torch, for the page."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")


def unknown(prompt: str, vocabulary: Mapping[str, Iterable[str]], also: Iterable[str] = ()) -> tuple[str, ...]:
    """The words of a prompt, in order and once each, that are in neither the vocabulary nor `also`."""
    known = {part.lower() for words in (*vocabulary.values(), also) for word in words for part in _WORD.findall(word)}
    return tuple(dict.fromkeys(word for word in _WORD.findall(prompt) if word.lower() not in known))
