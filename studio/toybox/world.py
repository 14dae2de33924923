"""Scenes of the Toybox: what is in a picture is decided first, so caption and labels are exact; then it is drawn."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from random import Random

from PIL import Image, ImageDraw

from studio.errors import BadRequest, UnknownName

from .pen import Colour, Pen, mix
from .places import paint
from .portrait import draw_hand, draw_person
from .shapes import DRAWINGS, EXTENTS

SIDE = 128
_SCALE = 2  # scenes are drawn at twice the size and reduced: smooth edges for little time

CLASSES: tuple[str, ...] = tuple(DRAWINGS)
COLOURS: dict[str, Colour] = {
    "red": (222, 46, 48),
    "orange": (244, 132, 34),
    "yellow": (248, 212, 44),
    "green": (52, 168, 72),
    "blue": (48, 98, 222),
    "purple": (132, 62, 178),
    "pink": (246, 142, 186),
    "white": (246, 246, 242),
}
BACKGROUNDS: dict[str, str] = {
    "meadow": "in the meadow",
    "forest": "in the forest",
    "beach": "on the beach",
    "snow": "in the snow",
    "city": "in the city",
    "night": "at night",
}
RELATIONS: tuple[str, ...] = ("left of", "right of", "above")
STYLES: tuple[str, ...] = ("flat",)  # the slot for more; the plain style is not named in captions
NUMBERS: tuple[str, ...] = ("one", "two", "three", "four", "five")
KINDS: tuple[str, ...] = ("one", "two", "three", "portrait")
_OPENINGS = ("", "", "a photo of ", "a picture of ", "a drawing of ")

Box = tuple[float, float, float, float]
Slot = tuple[float, float, float]  # centre x, centre y, side of an object's unit square; pixels


@dataclass(frozen=True)
class Thing:
    """One object of a scene: class, colour name, box of its pixels (left, top, right, bottom) and its mirror flag."""

    kind: str
    colour: str
    box: Box
    flip: bool = False


@dataclass(frozen=True)
class Scene:
    """Everything there is to know about one picture; `relation` says where the first thing is, seen from the second."""

    seed: int
    background: str
    things: tuple[Thing, ...]
    relation: str | None = None
    fingers: int | None = None
    hand: Box | None = None
    style: str = "flat"

    def caption(self, variant: int = 0) -> str:
        """Return one of many true sentences about the scene; the same `variant` always gives the same sentence."""
        rng = Random(f"caption {self.seed} {variant}")
        body = self._portrait_words(rng) if self.fingers is not None else self._thing_words(rng)
        place = BACKGROUNDS[self.background]
        form = rng.random()
        if form < 0.12:
            return rng.choice(_OPENINGS) + body
        if form < 0.22:
            return f"{place}, {body}"
        return f"{rng.choice(_OPENINGS)}{body} {place}"

    def draw(self) -> Image.Image:
        """Return the 128 x 128 RGB picture."""
        rng = Random(f"draw {self.seed}")
        picture = paint(self.background, SIDE * _SCALE, rng)
        draw = ImageDraw.Draw(picture)
        if self.fingers is not None:
            self._draw_portrait(draw, rng.random())
        else:
            self._draw_things(draw)
        return picture.reduce(_SCALE)

    def _thing_words(self, rng: Random) -> str:
        names = [_noun(t.colour if rng.random() > 0.06 else None, t.kind) for t in self.things]
        if len(names) == 2 and self.relation is not None and rng.random() < 0.75:
            return _related(names, self.relation, rng)
        return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)

    def _portrait_words(self, rng: Random) -> str:
        shirt = f"a person in a {self.things[0].colour} shirt"
        if self.things[0].colour == "orange":
            shirt = "a person in an orange shirt"
        count = NUMBERS[(self.fingers or 1) - 1]
        noun = "finger" if self.fingers == 1 else "fingers"
        return rng.choice((f"{shirt} showing {count} {noun}", f"{shirt} with a raised hand, {count} {noun}"))

    def _draw_things(self, draw: ImageDraw.ImageDraw) -> None:
        for thing in self.things:
            pen = _pen(draw, thing)
            x0, _, x1, y1 = (v * _SCALE for v in thing.box)
            high = (x1 - x0) * 0.07
            ground = draw.im.getpixel(
                (int(min(max((x0 + x1) / 2, 0), SIDE * _SCALE - 1)), int(min(y1, SIDE * _SCALE - 1)))
            )
            draw.ellipse((x0 + high, y1 - high, x1 - high, y1 + high), fill=mix(ground, (20, 20, 50), 0.28))
            DRAWINGS[thing.kind](pen, COLOURS[thing.colour])

    def _draw_portrait(self, draw: ImageDraw.ImageDraw, look: float) -> None:
        person, hand = self.things[0], self.hand
        assert hand is not None and self.fingers is not None, "portrait() sets both"
        shirt = COLOURS[person.colour]
        x0, y0, x1, _ = (v * _SCALE for v in person.box)
        draw_person(Pen(draw, x0, y0, x1 - x0), shirt, Random(look))
        left, top, right, _ = (v * _SCALE for v in hand)
        draw_hand(Pen(draw, left, top, right - left, person.flip), shirt, self.fingers, Random(look))


def vocabulary() -> dict[str, list[str]]:
    """Return the words the base was taught, by what they name."""
    return {
        "classes": list(CLASSES),
        "colours": list(COLOURS),
        "backgrounds": list(BACKGROUNDS.values()),
        "relations": list(RELATIONS),
        "openings": [o.strip() for o in dict.fromkeys(_OPENINGS) if o],
        "portrait": ["a person in a red shirt showing five fingers", "with a raised hand"],
        "numbers": list(NUMBERS),
        "joining": ["a", "an", "the", "and", "to", "finger"],
    }


def scene(seed: int, kind: str = "one") -> Scene:
    """Return the scene that `seed` means: `kind` is one, two, three (objects) or portrait; UnknownName otherwise."""
    _known("kind of scene", kind, KINDS)
    rng = Random(f"{kind} {seed}")
    background = rng.choice(list(BACKGROUNDS))
    if kind == "portrait":
        return portrait(seed, rng.choice(list(COLOURS)), rng.choice((1, 2, 3, 4, 5, 5)), background)
    pairs = _pairs(rng, KINDS.index(kind) + 1)
    relation = rng.choice(RELATIONS) if len(pairs) == 2 else None
    return arrange(seed, pairs, background, relation)


def arrange(seed: int, pairs: Sequence[tuple[str, str]], background: str, relation: str | None = None) -> Scene:
    """Return a scene of one to three (class, colour) pairs on `background`; `seed` decides the layout.

    Raises UnknownName for a class, colour, background or relation that is not of this world.
    """
    _known("background", background, BACKGROUNDS)
    for kind, colour in pairs:
        _known("class", kind, CLASSES)
        _known("colour", colour, COLOURS)
    if relation is not None:
        _known("relation", relation, RELATIONS)
    rng = Random(f"layout {seed}")
    things = []
    for (kind, colour), (x, y, side) in zip(pairs, _slots(rng, len(pairs), relation), strict=True):
        flip = rng.random() < 0.5
        things.append(Thing(kind, colour, _box(kind, (x, y, side), flip), flip))
    return Scene(seed, background, tuple(things), relation)


def portrait(seed: int, shirt: str, fingers: int, background: str) -> Scene:
    """Return a head, a shirt and a raised hand (at least 40 px) with `fingers` (1..5) fingers up."""
    if not 1 <= fingers <= 5:
        raise BadRequest(f"A hand shows 1 to 5 fingers, not {fingers}.")
    _known("background", background, BACKGROUNDS)
    _known("colour", shirt, COLOURS)
    rng = Random(f"layout {seed}")
    side, hand = rng.uniform(74, 84), rng.uniform(46, 54)
    right = rng.random() < 0.5
    x = rng.uniform(2, 8) if right else SIDE - side - rng.uniform(2, 8)
    y = SIDE - side * rng.uniform(0.98, 1.06)
    hx = SIDE - hand - rng.uniform(0, 3) if right else rng.uniform(0, 3)
    hy = rng.uniform(36, 50)
    person = Thing("person", shirt, (x, y, x + side, float(SIDE)), flip=not right)
    return Scene(seed, background, (person,), fingers=fingers, hand=(hx, hy, hx + hand, hy + hand))


def _known(what: str, name: str, choices: Collection[str]) -> None:
    if name not in choices:
        raise UnknownName(what, name, choices)


def _pairs(rng: Random, count: int) -> list[tuple[str, str]]:
    kinds = rng.sample(CLASSES, count)
    colours = rng.sample(list(COLOURS), count)
    if count > 1 and rng.random() < 0.12:
        kinds[1] = kinds[0]  # twins of different colours: later work composes look-alikes
    return list(zip(kinds, colours, strict=True))


def _slots(rng: Random, count: int, relation: str | None) -> list[Slot]:
    def near(x: float, y: float, low: float, high: float) -> Slot:
        return x + rng.uniform(-4, 4), y + rng.uniform(-5, 5), rng.uniform(low, high)

    if count == 1:
        side = rng.uniform(62, 88)
        return [(rng.uniform(side / 2 + 3, SIDE - side / 2 - 3), rng.uniform(66, 123 - side / 2), side)]
    if count == 3:
        return [near(x, 74 + rng.uniform(-8, 16), 38, 41) for x in (24, 64, 104)]
    if relation == "above":
        x = rng.uniform(44, 84)
        return [near(x, 33, 48, 54), near(x, 94, 50, 56)]
    pair = [near(34, 76, 50, 58), near(94, 76, 50, 58)]
    return pair[::-1] if relation == "right of" else pair


def _box(kind: str, slot: Slot, flip: bool) -> Box:
    x, y, side = slot
    left, top, right, bottom = EXTENTS[kind]
    if flip:
        left, right = 1 - right, 1 - left
    x, y = x - side / 2, y - side / 2
    return (x + left * side, y + top * side, x + right * side, y + bottom * side)


def _pen(draw: ImageDraw.ImageDraw, thing: Thing) -> Pen:
    left, top, right, _ = EXTENTS[thing.kind]
    if thing.flip:
        left, right = 1 - right, 1 - left
    side = (thing.box[2] - thing.box[0]) / (right - left)
    return Pen(
        draw, (thing.box[0] - left * side) * _SCALE, (thing.box[1] - top * side) * _SCALE, side * _SCALE, thing.flip
    )


def _noun(colour: str | None, kind: str) -> str:
    words = kind if colour is None else f"{colour} {kind}"
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


def _related(names: list[str], relation: str, rng: Random) -> str:
    first, second = names
    if relation == "above":
        return f"{first} above {second}"
    return f"{first} {rng.choice(('', 'to the '))}{relation} {second}"
