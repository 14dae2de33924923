"""Branch prompts: what is put in can be taken out again, and stands before its words."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.errors import BadRequest
from pipelines.text import branches, cut_part, joint, locate
from tests.pipelines import tiny


@dataclass(frozen=True)
class Voice:
    """The part of an adapter that prompts see."""

    name: str = "a"
    words: tuple[str, ...] = ()
    trigger: str = ""


NOUNS = ("cat", "dog", "house", "red boat")
FILLERS = st.sampled_from(["a", "the", "near", "big", "concatenate", "Dogma", "é", "(1.2)"])


@st.composite
def scenes(draw: st.DrawFn) -> tuple[str, list[Voice]]:
    """A prompt with each noun once, and adapters that own some of them."""
    nouns = draw(st.lists(st.sampled_from(NOUNS), unique=True, min_size=1))
    parts = [" ".join([*draw(st.lists(FILLERS, max_size=3)), noun]) for noun in nouns]
    owners = draw(st.lists(st.sampled_from([*nouns, None]), min_size=1, max_size=4))
    voices = [Voice(f"a{i}", (noun,) if noun else (), f"zqx{i}") for i, noun in enumerate(owners)]
    return " ".join(parts), voices


@given(scenes())
def test_the_joint_prompt_without_triggers_is_the_prompt(scene: tuple[str, list[Voice]]) -> None:
    prompt, voices = scene
    text = joint(prompt, voices)
    for voice in voices:
        assert text.count(voice.trigger) == 1
        text = text.replace(f"{voice.trigger} ", "") if voice.words else text.replace(f", {voice.trigger}", "")
    assert text == prompt


@given(scenes())
def test_triggers_stand_before_their_words_in_the_order_of_the_adapters(scene: tuple[str, list[Voice]]) -> None:
    prompt, voices = scene
    text = joint(prompt, voices)
    for noun in NOUNS:
        owners = [voice.trigger for voice in voices if voice.words == (noun,)]
        if owners:
            assert " ".join([*owners, noun]) in text


@given(scenes())
def test_a_branch_speaks_of_one_subject_and_every_style(scene: tuple[str, list[Voice]]) -> None:
    prompt, voices = scene
    for own, text in zip(voices, branches(prompt, voices), strict=True):
        spoken = {voice.trigger for voice in voices if voice.trigger in text}
        assert spoken == {own.trigger} | {voice.trigger for voice in voices if not voice.words}


@given(st.text(max_size=30), st.text("ab#12 ²٣.", max_size=6))
def test_a_located_word_stands_there(prompt: str, word: str) -> None:
    try:
        position = locate(prompt, word)
    except BadRequest as error:
        assert word[:20] in str(error)
    else:
        text = word if prompt[position : position + len(word)].lower() == word.lower() else word.rpartition("#")[0]
        assert text and prompt[position : position + len(text)].lower() == text.lower()


def test_the_second_occurrence() -> None:
    prompt = "a cat, a Cat and a concatenated cat"
    assert [prompt[locate(prompt, f"cat#{n}") :][:3] for n in (1, 2, 3)] == ["cat", "Cat", "cat"]
    assert locate(prompt, "cat") == locate(prompt, "cat#1") == 2
    assert joint(prompt, [Voice(words=("cat#2",), trigger="sks")]) == "a cat, a sks Cat and a concatenated cat"
    with pytest.raises(BadRequest, match=r"“cat#4” stands only 3 times"):
        locate(prompt, "cat#4")
    with pytest.raises(BadRequest, match="“dog” is not in the prompt"):
        joint(prompt, [Voice(words=("dog",), trigger="sks")])


def test_a_hash_may_be_part_of_a_word() -> None:
    assert locate("written in c#0 and f#", "c#0") == 11


def test_a_trigger_that_is_already_typed_is_not_repeated() -> None:
    assert joint("a SKS cat", [Voice(words=("cat",), trigger="sks")]) == "a SKS cat"
    assert joint("a cat, inkstyle", [Voice(trigger="inkstyle")]) == "a cat, inkstyle"
    assert joint("", [Voice(trigger="inkstyle")]) == "inkstyle"
    assert joint("a cat, ", [Voice(trigger="inkstyle")]) == "a cat, inkstyle"


@given(st.text("abc d", max_size=60))
def test_what_is_kept_and_what_is_cut_make_the_prompt(prompt: str) -> None:
    tokenizer = TOKENIZER
    cut = cut_part(tokenizer, prompt)
    every = tokenizer(prompt).input_ids[1:-1]
    kept = every[: tiny.TOKENS - 2]
    again = tokenizer(cut).input_ids[1:-1]
    assert kept + again == every or not cut
    assert bool(cut) == (len(every) > tiny.TOKENS - 2)


TOKENIZER = tiny.tokenizer()
