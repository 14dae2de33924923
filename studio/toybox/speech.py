"""What the text encoder is taught: captions, made-up words among them, and what nouns and captions mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from string import ascii_lowercase

from transformers import CLIPTokenizer

from .world import BACKGROUNDS, CLASSES, COLOURS, NUMBERS, RELATIONS, Scene

NOUNS: tuple[str, ...] = (*CLASSES, "shirt")
OBJECTS = 3  # at most in one caption
_MADE_UP = 0.12  # share of captions that hold a word without a meaning


def spoken(scene: Scene, variant: int) -> str:
    """Return a caption, sometimes with a made-up word before a noun: the base learns to pass over such words.

    A personal adapter can then give such a word its meaning, while without the adapter the noun still draws.
    """
    caption = scene.caption(variant)
    rng = Random(f"spoken {scene.seed} {variant}")
    if rng.random() > _MADE_UP:
        return caption
    words = caption.split()
    nouns = [k for k, w in enumerate(words) if w.strip(",") in NOUNS]
    words.insert(rng.choice(nouns), "".join(rng.choices(ascii_lowercase, k=rng.randint(3, 6))))
    return " ".join(words)


@dataclass(frozen=True)
class Meaning:
    """Labels of a token sequence; the last index of each list of names means "not said".

    `nouns` holds (position, class, colour) of every noun; the rest belongs to the token that ends the text.
    """

    end: int
    nouns: tuple[tuple[int, int, int], ...]
    background: int
    relation: int
    fingers: int


class Reader:
    """Reads the meaning of tokenized captions back from their tokens."""

    def __init__(self, tokenizer: CLIPTokenizer) -> None:
        def table(words: Sequence[str]) -> dict[int, int]:
            return {tokenizer.convert_tokens_to_ids(f"{w}</w>"): k for k, w in enumerate(words)}

        self.nouns, self.colours = table(NOUNS), table(list(COLOURS))
        self.backgrounds, self.numbers = table(list(BACKGROUNDS)), table(NUMBERS)
        self.relations = table([r.split()[0] for r in RELATIONS])
        self.articles = set(table(("a", "an")))
        self.end = int(tokenizer.eos_token_id)

    def read(self, ids: Sequence[int]) -> Meaning:
        """Return the labels of one padded token sequence."""
        end = list(ids).index(self.end)
        colour, nouns = len(self.colours), []
        said = {"background": len(self.backgrounds), "relation": len(self.relations), "fingers": len(self.numbers)}
        for position, token in enumerate(ids[:end]):
            if token in self.articles:
                colour = len(self.colours)
            colour = self.colours.get(token, colour)
            if token in self.nouns:
                nouns.append((position, self.nouns[token], colour))
            said["background"] = self.backgrounds.get(token, said["background"])
            said["relation"] = self.relations.get(token, said["relation"])
            said["fingers"] = self.numbers.get(token, said["fingers"])
        return Meaning(end, tuple(nouns), **said)
