"""From the prompt a user wrote to the prompts of each branch.

The request's prompt uses class nouns ("a cat and a dog"). Each adapter has `words`, its nouns in that prompt
("cat", or "cat#2" for the second one), and a `trigger`, the word it was trained on. Three kinds of prompt follow:
the *plain* one as written, branch i's with trigger i alone before its words, and the *joint* one with all triggers.
A style has no words: its trigger goes at the end. A trigger the user has already typed is not put in again.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Protocol

from pipelines.errors import BadRequest, shorten


class Speaks(Protocol):
    """The part of an adapter that prompts are made from."""

    @property
    def name(self) -> str:
        """For messages."""

    @property
    def words(self) -> tuple[str, ...]:
        """Its nouns in the prompt."""

    @property
    def trigger(self) -> str:
        """The word it was trained on; may be empty."""


def joint(prompt: str, adapters: Sequence[Speaks]) -> str:
    """The prompt with every adapter's trigger.

    Raises:
        BadRequest: a word is not in the prompt; names it.
    """
    insertions = [insertion for adapter in adapters for insertion in _insertions(prompt, adapter)]
    # From the end, so that offsets before it stay true; of two at one place the first adapter's comes first.
    for position, trigger in reversed(sorted(insertions, key=lambda found: found[0])):
        prompt = f"{prompt[:position]}{trigger} {prompt[position:]}"
    for adapter in adapters:
        if adapter.trigger and not adapter.words and not _occurrences(prompt, adapter.trigger):
            prompt = f"{prompt.rstrip().rstrip(',')}, {adapter.trigger}" if prompt.strip() else adapter.trigger
    return prompt


def branches(prompt: str, adapters: Sequence[Speaks]) -> tuple[str, ...]:
    """One prompt an adapter: only its own trigger, and the triggers of styles, which speak in every branch."""
    styles = [adapter for adapter in adapters if not adapter.words]
    return tuple(joint(prompt, [adapter, *(style for style in styles if style is not adapter)]) for adapter in adapters)


def locate(prompt: str, word: str) -> int:
    """Where a word stands in the prompt, as a character offset; "cat#2" is its second occurrence.

    Raises:
        BadRequest: it does not stand there.
    """
    numbered = re.fullmatch(r"(.+)#([1-9][0-9]{0,3})", word, re.DOTALL)
    text, wanted = (numbered[1], int(numbered[2])) if numbered else (word, 1)
    found = _occurrences(prompt, text)
    if len(found) < wanted:
        times = "is not" if not found else f"stands only {len(found)} time{'s' * (len(found) > 1)}"
        raise BadRequest(f"The word “{shorten(word)}” {times} in the prompt “{shorten(prompt)}”.")
    return found[wanted - 1]


def cut_part(tokenizer: Any, prompt: str) -> str:
    """The end of the prompt that does not fit the text encoder; empty when all of it fits."""
    limit = tokenizer.model_max_length
    ids = tokenizer(prompt, truncation=False, verbose=False).input_ids
    if len(ids) <= limit:
        return ""
    # The first token opens the prompt and the last closes it, so limit - 2 are left for words.
    return str(tokenizer.decode(ids[limit - 1 : -1])).strip()


def _insertions(prompt: str, adapter: Speaks) -> list[tuple[int, str]]:
    positions = [locate(prompt, word) for word in adapter.words]
    if not adapter.trigger or _occurrences(prompt, adapter.trigger):
        return []
    return [(position, adapter.trigger) for position in sorted(set(positions))]


def _occurrences(prompt: str, word: str) -> list[int]:
    """Offsets of a whole word or phrase, whatever its case."""
    if not word:
        return []
    pattern = rf"(?<!\w){re.escape(word)}(?!\w)"
    return [match.start() for match in re.finditer(pattern, prompt, re.IGNORECASE)]
