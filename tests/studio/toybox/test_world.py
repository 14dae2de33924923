"""The labels of a scene are true of its pixels, and its caption of its labels."""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageChops, ImageDraw

from studio.errors import BadRequest, UnknownName
from studio.toybox.pen import Pen
from studio.toybox.shapes import DRAWINGS, EXTENTS
from studio.toybox.world import (
    BACKGROUNDS,
    CLASSES,
    COLOURS,
    KINDS,
    NUMBERS,
    SIDE,
    Scene,
    arrange,
    portrait,
    scene,
    vocabulary,
)

SEEDS = st.integers(0, 2**40)


def near_colour(picture: Image.Image, colour: str, box: tuple[float, float, float, float]) -> float:
    """Share of the box's pixels whose colour is nearest to `colour` among all colours, and near to it."""
    pixels = np.asarray(picture.crop([round(v) for v in box]), dtype=np.float32).reshape(-1, 3)
    return float((np.abs(pixels - np.array(COLOURS[colour])).max(1) < 24).mean())


@given(SEEDS, st.sampled_from(KINDS))
def test_a_seed_always_means_the_same_scene_caption_and_pixels(seed: int, kind: str) -> None:
    first, second = scene(seed, kind), scene(seed, kind)
    assert first == second
    assert first.caption(3) == second.caption(3)
    assert first.draw().tobytes() == second.draw().tobytes()
    assert first.draw().size == (SIDE, SIDE)


@given(SEEDS, st.sampled_from(("one", "two", "three")))
def test_every_thing_lies_inside_the_picture_and_shows_its_colour_there(seed: int, kind: str) -> None:
    whole = scene(seed, kind)
    picture = whole.draw()
    for thing in whole.things:
        left, top, right, bottom = thing.box
        assert -1 <= left < right <= SIDE + 1 and -1 <= top < bottom <= SIDE + 1
        assert near_colour(picture, thing.colour, thing.box) > 0.06


@pytest.mark.parametrize("kind", CLASSES)
def test_the_box_is_the_box_of_the_drawn_pixels(kind: str) -> None:
    side, ground = 140, (1, 2, 3)
    page = Image.new("RGB", (2 * side, 2 * side), ground)
    DRAWINGS[kind](Pen(ImageDraw.Draw(page), side / 2, side / 2, side), (200, 100, 50))
    found = ImageChops.difference(page, Image.new("RGB", page.size, ground)).getbbox()
    assert found is not None
    assert np.allclose([(v - side / 2) / side for v in found], EXTENTS[kind], atol=0.015)


@given(SEEDS)
def test_relations_are_true_of_the_boxes(seed: int) -> None:
    whole = scene(seed, "two")
    (ax, ay), (bx, by) = [((t.box[0] + t.box[2]) / 2, (t.box[1] + t.box[3]) / 2) for t in whole.things]
    assert {"left of": ax < bx - 20, "right of": ax > bx + 20, "above": ay < by - 20}[str(whole.relation)]


@given(SEEDS, st.integers(0, 50), st.sampled_from(("one", "two", "three")))
def test_captions_name_the_things_in_order_and_only_known_words(seed: int, variant: int, kind: str) -> None:
    whole = scene(seed, kind)
    words = whole.caption(variant).replace(",", "").split()
    assert [w for w in words if w in CLASSES] == [t.kind for t in whole.things]
    said = [w for w in words if w in COLOURS]
    assert [c for c in (t.colour for t in whole.things) if c in said] == said
    assert all(place == whole.background for place in BACKGROUNDS if place in words)
    assert {"left", "right", "above"} & set(words) <= set(str(whole.relation).split())
    assert "a orange" not in whole.caption(variant)


@given(SEEDS)
def test_every_word_of_a_caption_is_in_the_vocabulary(seed: int) -> None:
    known = {w for words in vocabulary().values() for text in words for w in text.split()}
    for kind in KINDS:
        assert set(scene(seed, kind).caption().replace(",", "").split()) <= known


@given(SEEDS, st.integers(1, 5))
def test_a_portrait_has_a_large_hand_and_says_how_many_fingers(seed: int, fingers: int) -> None:
    whole = portrait(seed, "blue", fingers, "snow")
    assert whole.hand is not None
    left, top, right, bottom = whole.hand
    assert min(right - left, bottom - top) >= 40 and left >= 0 and right <= SIDE
    assert NUMBERS[fingers - 1] in whole.caption().split()
    hands = {n: np.asarray(portrait(seed, "blue", n, "snow").draw(), dtype=int) for n in (fingers, fingers % 5 + 1)}
    changed = np.abs(hands[fingers] - hands[fingers % 5 + 1]).max(2) > 20
    rows, columns = np.nonzero(changed)
    assert len(rows) > 30, "another number of fingers is another picture"
    assert rows.min() >= top - 3 and rows.max() <= bottom + 3
    assert columns.min() >= left - 3 and columns.max() <= right + 3


def test_arranged_scenes_keep_what_was_asked() -> None:
    whole = arrange(7, [("cat", "red"), ("cat", "blue")], "night", "above")
    assert [(t.kind, t.colour) for t in whole.things] == [("cat", "red"), ("cat", "blue")]
    assert (whole.background, whole.relation) == ("night", "above")


def test_backgrounds_differ_more_than_their_variations() -> None:
    means = {
        place: np.stack([np.asarray(Scene(seed, place, ()).draw(), dtype=float).mean((0, 1)) for seed in range(4)])
        for place in BACKGROUNDS
    }
    for place, own in means.items():
        inside = np.abs(own - own.mean(0)).max()
        others = min(np.abs(own.mean(0) - m.mean(0)).max() for name, m in means.items() if name != place)
        assert inside < others, place


def test_unknown_choices_are_refused_by_name() -> None:
    with pytest.raises(UnknownName, match="four"):
        scene(1, "four")
    with pytest.raises(UnknownName, match="dragon"):
        arrange(1, [("dragon", "red")], "snow")
    with pytest.raises(UnknownName, match="teal"):
        arrange(1, [("cat", "teal")], "snow")
    with pytest.raises(UnknownName, match="moon"):
        arrange(1, [("cat", "red")], "moon")
    with pytest.raises(BadRequest, match="6"):
        portrait(1, "red", 6, "snow")


def test_drawing_is_fast() -> None:
    start = time.process_time()
    for seed in range(150):
        scene(seed, "three").draw()
    assert 150 / (time.process_time() - start) > 300


def test_the_vocabulary_needs_no_torch() -> None:
    code = "import sys; from studio.toybox.world import vocabulary; vocabulary(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
