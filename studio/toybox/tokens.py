"""The Toybox's tokenizer: a CLIPTokenizer whose byte pairs were merged on the world's captions; it takes any text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTokenizer

from .world import KINDS, scene, vocabulary

LENGTH = 77
_END = "</w>"


def make_tokenizer(limit: int = 2048) -> CLIPTokenizer:
    """Return the tokenizer: 256 bytes, 256 bytes that end a word, merges until every caption word is one token."""
    merges = learn_merges(_words(), limit - 514)
    alphabet = sorted(ByteLevel.alphabet())
    symbols = [*alphabet, *(c + _END for c in alphabet), *(a + b for a, b in merges)]
    symbols += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary_ids = {symbol: k for k, symbol in enumerate(symbols)}
    return CLIPTokenizer(vocab=vocabulary_ids, merges=merges, model_max_length=LENGTH)


def learn_merges(words: Iterable[str], limit: int) -> list[tuple[str, str]]:
    """Byte-pair encoding: merge the most frequent neighbours until words are single symbols, at most `limit` times."""
    counts = Counter(words)
    spelt = {w: [*w[:-1], w[-1] + _END] for w in sorted(counts)}
    merges: list[tuple[str, str]] = []
    while len(merges) < limit:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, parts in spelt.items():
            for pair in zip(parts, parts[1:], strict=False):
                pairs[pair] += counts[word]
        if not pairs:
            break
        best = min(pairs, key=lambda p: (-pairs[p], p))
        merges.append(best)
        for parts in spelt.values():
            _merge(parts, best)
    return merges


def _merge(parts: list[str], pair: tuple[str, str]) -> None:
    k = 0
    while k < len(parts) - 1:
        if (parts[k], parts[k + 1]) == pair:
            parts[k : k + 2] = ["".join(pair)]
        k += 1


def _words() -> list[str]:
    captions = [scene(seed, kind).caption() for kind in KINDS for seed in range(400)]
    captions += [word for words in vocabulary().values() for word in words]
    return " ".join(captions).replace(",", " ,").split()
