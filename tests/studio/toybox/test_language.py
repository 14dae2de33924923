"""The tokenizer takes any text; labels read from tokens are the labels of the scene."""

from __future__ import annotations

import unicodedata
from functools import cache
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from transformers import CLIPTokenizer

from studio.toybox.speech import NOUNS, Reader, spoken
from studio.toybox.tokens import LENGTH, learn_merges, make_tokenizer
from studio.toybox.world import BACKGROUNDS, COLOURS, KINDS, scene, vocabulary


@cache
def tokenizer() -> CLIPTokenizer:
    return make_tokenizer()


def plain(text: str) -> str:
    """What CLIP's own normalisation keeps of a text: composed, lower case, without spaces."""
    return "".join(unicodedata.normalize("NFC", text).lower().split())


@given(st.text(st.characters(exclude_categories=("Cs", "Cc", "Zs", "Zl", "Zp")), max_size=40))
def test_any_text_comes_back_from_its_tokens(text: str) -> None:
    tokens = tokenizer()
    ids = tokens(text).input_ids
    assert ids[0] == tokens.bos_token_id and ids[-1] == tokens.eos_token_id
    assert plain(tokens.decode(ids, skip_special_tokens=True)) == plain(text)


@given(st.text(max_size=300))
def test_a_prompt_is_always_77_known_tokens(text: str) -> None:
    ids = tokenizer()(text, padding="max_length", max_length=LENGTH, truncation=True).input_ids
    assert len(ids) == LENGTH
    assert all(0 <= k < len(tokenizer()) for k in ids)


def test_every_word_of_the_world_is_one_token() -> None:
    for word in {w for words in vocabulary().values() for text in words for w in text.split()}:
        assert len(tokenizer()(word).input_ids) == 3, word


def test_made_up_words_are_told_apart() -> None:
    made_up = ("sks", "zwx", "zwxs", "ohwx", "xcat")
    assert len({tuple(tokenizer()(w).input_ids) for w in made_up}) == len(made_up)


def test_the_saved_tokenizer_is_the_same(tmp_path: Path) -> None:
    tokenizer().save_pretrained(tmp_path)
    again = CLIPTokenizer.from_pretrained(tmp_path)
    for text in ("a red cat left of a blue house", "zwx ☃ Ünïcode", ""):
        assert again(text).input_ids == tokenizer()(text).input_ids
    assert again.model_max_length == LENGTH


def test_merges_join_the_most_frequent_pair_first() -> None:
    assert learn_merges(["ab", "ab", "cb"], 10) == [("a", "b</w>"), ("c", "b</w>")]
    assert learn_merges(["ab", "cd"], 1) == [("a", "b</w>")]


@given(st.integers(0, 2**40), st.integers(0, 9), st.sampled_from(("one", "two", "three")))
def test_labels_read_from_tokens_are_those_of_the_scene(seed: int, variant: int, kind: str) -> None:
    whole = scene(seed, kind)
    caption = spoken(whole, variant)
    ids = tokenizer()(caption, padding="max_length", max_length=LENGTH).input_ids
    meaning = Reader(tokenizer()).read(ids)
    assert [NOUNS[k] for _, k, _ in meaning.nouns] == [t.kind for t in whole.things]
    for thing, (position, _, colour) in zip(whole.things, meaning.nouns, strict=True):
        assert ids[position] == tokenizer().convert_tokens_to_ids(f"{thing.kind}</w>")
        assert [*COLOURS, thing.colour][colour] == thing.colour
    if whole.background in caption:
        assert list(BACKGROUNDS)[meaning.background] == whole.background
    assert ids[meaning.end] == tokenizer().eos_token_id


@given(st.integers(0, 2**40), st.sampled_from(KINDS))
def test_spoken_captions_add_at_most_one_word(seed: int, kind: str) -> None:
    whole = scene(seed, kind)
    said, caption = spoken(whole, 1).split(), whole.caption(1).split()
    extra = [w for w in said if w not in caption]
    assert len(said) - len(caption) == len(extra) <= 1
