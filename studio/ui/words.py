"""The words a small base knows, as chips, and the words in a prompt that it does not."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from studio.specs import AdapterInfo, AdapterUse
from studio.ui.strings import ENGLISH, say
from studio.vocabulary import unknown

TAG = re.compile(r"<[^<>]*>")
SHOWN = 12

Vocabulary = Mapping[str, Sequence[str]]


def adapter_words(adapters: Iterable[AdapterUse], library: Iterable[AdapterInfo]) -> list[str]:
    """The words that the chosen adapters bring along: their triggers and their nouns."""
    triggers = {info.name: info.trigger for info in library}
    phrases = [phrase for use in adapters for phrase in (use.trigger or triggers.get(use.name, ""), *use.words)]
    return [phrase for phrase in phrases if phrase]


def chips(vocabulary: Vocabulary) -> str:
    """HTML: one group of clickable words per kind of word; empty where a base lists none."""
    return "".join(
        f'<div class="words-group"><span class="words-kind">{escape(ENGLISH.get(f"words.{kind}", kind))}</span>'
        f'<span class="words-list">{"".join(map(_chip, words))}</span></div>'
        for kind, words in vocabulary.items()
        if words
    )


def _chip(word: str) -> str:
    return f'<button type="button" data-word="{escape(word)}">{escape(word)}</button>'


def marked(prompt: str, vocabulary: Vocabulary, also: Sequence[str] = ()) -> str:
    """HTML: the words of `prompt` that are in neither list, each with a close known one; empty if there are none.

    `<lora:...>` tags are no words.
    """
    strange = unknown(TAG.sub(" ", prompt), vocabulary, also)
    if not strange:
        return ""
    words = sorted({word.lower() for group in vocabulary.values() for phrase in group for word in phrase.split()})
    marks = "".join(f"<mark>{escape(_hint(word, words))}</mark>" for word in strange[:SHOWN])
    return f'<div class="unknown" role="status">{escape(say("unknown"))} {marks}</div>'


def _hint(word: str, words: Sequence[str]) -> str:
    close = difflib.get_close_matches(word.lower(), words, n=1, cutoff=0.75)
    return say("maybe", word=word, close=close[0]) if close else word
