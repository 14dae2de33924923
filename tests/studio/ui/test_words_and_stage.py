"""What the page writes as HTML: escaped, and only as often as an eye can follow."""

from __future__ import annotations

import re
from html import unescape

from hypothesis import given
from hypothesis import strategies as st

from studio.specs import AdapterUse, Preview, Progress
from studio.ui import stage, strings
from studio.ui.parts import row_of, use_of
from studio.ui.words import adapter_words, chips, marked
from tests.fakes import ADAPTERS, VOCABULARY

HOSTILE = st.text(st.sampled_from("ab<>&\"'`${}/ "), max_size=30)


def tags(html: str) -> set[str]:
    return set(re.findall(r"<\s*([a-z0-9]+)", html))


@given(HOSTILE)
def test_no_text_becomes_markup(text: str) -> None:
    assert tags(stage.problem(text)) <= {"div", "p"} and tags(stage.note(text)) <= {"div", "p"}
    assert tags(marked(text, VOCABULARY)) <= {"div", "mark"}
    html = chips({text: (text,)})
    assert tags(html) <= {"div", "span", "button"}
    assert unescape(re.findall(r'data-word="(.*?)"', html, re.DOTALL)[0]) == text


def test_unknown_words_are_marked_once_with_the_closest_known_one() -> None:
    html = marked("a photo of a hoouse and a Zebra, a zebra <lora:ufo:1>", VOCABULARY, ["and"])
    assert re.findall("<mark>(.*?)</mark>", html) == ["hoouse → house?", "Zebra", "zebra"]
    assert marked("a photo of a RED cat", VOCABULARY) == ""


def test_an_adapters_trigger_and_words_are_known() -> None:
    uses = [AdapterUse(name="fox", words=("wolf",)), AdapterUse(name="gone", trigger="mine")]
    assert set(adapter_words(uses, ADAPTERS)) == {"sks", "wolf", "mine"}


def test_a_new_phase_is_always_shown_and_steps_only_a_few_times_a_second() -> None:
    pace = stage.Pace()
    steps = [Progress(phase="sampling", step=step, total=1000) for step in range(1000)]
    shown = [step for number, step in enumerate(steps) if pace.lets(step, now=number / 1000)]
    assert 1 / stage.PREVIEW_SECONDS - 1 <= len(shown) <= 1 / stage.PREVIEW_SECONDS + 1
    assert pace.lets(Progress(phase="saving"), now=1.0)
    assert pace.lets(Preview(step=1, images=()), now=1.0) and not pace.lets(Preview(step=2, images=()), now=1.01)


@given(st.integers(0, 50), st.integers(1, 50))
def test_the_bar_says_how_far_it_is(step: int, total: int) -> None:
    step = min(step, total)
    html = stage.working(Progress(phase="sampling", step=step, total=total, left=3), None)
    assert f'aria-valuenow="{step / total * 100:.0f}"' in html and "3.0 s left" in html
    assert "aria-valuenow" not in stage.working(None, None)


@given(
    st.builds(
        AdapterUse,
        name=st.text(min_size=1, max_size=20),
        hash=st.none() | st.from_regex(r"[0-9a-f]{12}", fullmatch=True),
        weight=st.floats(-4, 4),
        text_weight=st.none() | st.floats(-4, 4),
        words=st.lists(st.from_regex(r"[a-z]+(#[1-9])?", fullmatch=True), max_size=3).map(tuple),
        trigger=st.none() | st.from_regex(r"[a-z]{1,9}", fullmatch=True),
    )
)
def test_a_row_holds_all_of_an_adapter(use: AdapterUse) -> None:
    assert use_of(row_of(use)) == use


def test_times_are_said_as_people_do() -> None:
    assert [strings.duration(seconds) for seconds in (0.84, 9.96, 59.6, 125)] == [
        "0.8 s",
        "10 s",
        "1 min 00 s",
        "2 min 05 s",
    ]
