"""The portrait: a head, shoulders in a coloured shirt, and one raised hand whose fingers can be counted."""

from __future__ import annotations

from random import Random

from .pen import INK, PAPER, Colour, Pen, mix

SKINS: tuple[Colour, ...] = ((250, 214, 180), (232, 184, 140), (196, 140, 98), (142, 94, 64))
HAIR: tuple[Colour, ...] = ((60, 44, 40), (120, 76, 44), (222, 180, 92), (170, 74, 40))

# Unit square of the hand: root and tip of the thumb and the four fingers, in the order in which they are raised.
_FINGERS = (
    ((0.38, 0.5), (0.3, 0.14)),
    ((0.5, 0.47), (0.5, 0.07)),
    ((0.62, 0.5), (0.7, 0.13)),
    ((0.72, 0.58), (0.88, 0.27)),
    ((0.3, 0.72), (0.09, 0.46)),
)


def draw_person(pen: Pen, shirt: Colour, rng: Random) -> None:
    """Draw head and shoulders; skin and hair follow the generator."""
    skin, hair = rng.choice(SKINS), rng.choice(HAIR)
    pen.body(shirt, (0.02, 0.68, 0.98, 1.6))
    pen.body(skin, [(0.4, 0.58), (0.6, 0.58), (0.62, 0.76), (0.5, 0.82), (0.38, 0.76)])
    pen.body(hair, (0.2, 0.02, 0.8, 0.5))
    pen.body(skin, (0.25, 0.12, 0.75, 0.68))
    pen.solid(hair, [(0.27, 0.3), (0.3, 0.12), (0.5, 0.05), (0.7, 0.12), (0.73, 0.3), (0.6, 0.2), (0.42, 0.2)])
    for x in (0.4, 0.6):
        pen.dot(x, 0.4, 0.05, PAPER)
        pen.dot(x, 0.405, 0.033)
    pen.line([(0.5, 0.43), (0.48, 0.5), (0.51, 0.5)], mix(skin, INK, 0.35), 0.022)
    pen.line([(0.42, 0.57), (0.46, 0.6), (0.54, 0.6), (0.58, 0.57)], (178, 60, 66), 0.03)


def draw_hand(pen: Pen, shirt: Colour, fingers: int, rng: Random) -> None:
    """Draw a raised hand with `fingers` (1..5) fingers up; `rng` must be in the state given to `draw_person`."""
    skin = rng.choice(SKINS)
    pen.body(shirt, [(0.36, 0.92), (0.66, 0.92), (0.72, 1.5), (0.34, 1.5)])
    for width, fill in ((0.165, INK), (0.11, skin)):
        for root, tip in _FINGERS[:fingers]:
            pen.line([root, tip], fill, width)
        if fill is INK:
            pen.body(skin, (0.27, 0.42, 0.77, 0.94))
    pen.solid(skin, (0.27, 0.42, 0.77, 0.94))
