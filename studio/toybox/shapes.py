"""How each class of thing is drawn: one short function per class, in the unit square of a pen."""

from __future__ import annotations

from collections.abc import Callable
from math import cos, pi, sin

from .pen import INK, PAPER, Colour, Part, Pen, mix

LEAF: Colour = (86, 158, 74)
WOOD: Colour = (134, 92, 62)
STRAW: Colour = (250, 206, 84)
GLASS: Colour = (190, 228, 244)
STEEL: Colour = (92, 92, 104)


def shade(colour: Colour) -> Colour:
    """The darker tone of a colour, for parts that lie in its shadow."""
    return mix(colour, (76, 22, 44), 0.27)


def tint(colour: Colour) -> Colour:
    """The lighter tone of a colour, for parts that catch light."""
    return mix(colour, (255, 255, 255), 0.5)


def cat(pen: Pen, colour: Colour) -> None:
    """A sitting cat seen from the front, its tail curling up beside it."""
    pen.line([(0.66, 0.9), (0.86, 0.88), (0.93, 0.74), (0.88, 0.6)], INK, 0.13)
    pen.line([(0.66, 0.9), (0.86, 0.88), (0.93, 0.74), (0.88, 0.6)], colour, 0.08)
    pen.body(colour, (0.24, 0.44, 0.76, 0.98))
    pen.solid(tint(colour), (0.37, 0.58, 0.63, 0.95))
    pen.body(
        colour,
        (0.16, 0.12, 0.84, 0.6),
        [(0.18, 0.3), (0.2, 0.03), (0.44, 0.16)],
        [(0.82, 0.3), (0.8, 0.03), (0.56, 0.16)],
    )
    pen.solid(shade(colour), [(0.23, 0.22), (0.24, 0.09), (0.35, 0.16)], [(0.77, 0.22), (0.76, 0.09), (0.65, 0.16)])
    _eyes(pen, 0.36, 0.64, 0.34, 0.055)
    pen.solid(INK, [(0.46, 0.43), (0.54, 0.43), (0.5, 0.48)])
    for y in (0.42, 0.49):
        pen.line([(0.3, 0.45), (0.08, y)], INK, 0.018)
        pen.line([(0.7, 0.45), (0.92, y)], INK, 0.018)


def dog(pen: Pen, colour: Colour) -> None:
    """A standing dog seen from the side, nose to the left, ears hanging."""
    pen.line([(0.86, 0.5), (0.95, 0.3)], INK, 0.12)
    pen.line([(0.86, 0.5), (0.95, 0.3)], colour, 0.07)
    legs: list[Part] = [[(x, 0.6), (x + 0.12, 0.6), (x + 0.12, 0.96), (x, 0.96)] for x in (0.36, 0.53, 0.78)]
    pen.body(colour, (0.32, 0.42, 0.94, 0.76), *legs)
    pen.body(colour, (0.14, 0.1, 0.56, 0.52), (0.03, 0.28, 0.36, 0.5))
    pen.body(shade(colour), (0.42, 0.13, 0.6, 0.5))
    pen.dot(0.07, 0.34, 0.055)
    pen.dot(0.27, 0.25, 0.045)
    pen.line([(0.46, 0.58), (0.36, 0.52)], (214, 64, 64), 0.06)


def bird(pen: Pen, colour: Colour) -> None:
    """A plump bird seen from the side, beak to the left."""
    for x in (0.44, 0.56):
        pen.line([(x, 0.8), (x, 0.96), (x - 0.08, 0.96)], INK, 0.035)
    pen.body(shade(colour), [(0.72, 0.56), (0.99, 0.34), (0.97, 0.6), (0.74, 0.74)])
    pen.body(STRAW, [(0.2, 0.26), (0.02, 0.35), (0.2, 0.42)])
    pen.body(colour, (0.16, 0.08, 0.58, 0.52), (0.2, 0.32, 0.84, 0.86))
    pen.solid(tint(colour), (0.25, 0.5, 0.55, 0.82))
    pen.body(shade(colour), (0.46, 0.44, 0.82, 0.7))
    pen.dot(0.31, 0.27, 0.06, PAPER)
    pen.dot(0.3, 0.27, 0.038)


def fish(pen: Pen, colour: Colour) -> None:
    """A fish seen from the side, head to the left."""
    pen.body(shade(colour), [(0.68, 0.5), (0.98, 0.22), (0.92, 0.5), (0.98, 0.78)])
    pen.body(shade(colour), [(0.3, 0.3), (0.46, 0.08), (0.66, 0.32)], [(0.4, 0.7), (0.52, 0.9), (0.64, 0.68)])
    pen.body(colour, (0.02, 0.22, 0.78, 0.78))
    pen.solid(tint(colour), (0.16, 0.56, 0.62, 0.75))
    for x in (0.42, 0.56):
        pen.line([(x, 0.36), (x + 0.06, 0.46), (x, 0.56)], shade(colour), 0.035)
    pen.dot(0.2, 0.42, 0.075, PAPER)
    pen.dot(0.18, 0.42, 0.045)
    pen.line([(0.06, 0.58), (0.15, 0.6)], INK, 0.025)


def tree(pen: Pen, colour: Colour) -> None:
    """A round tree: wooden trunk, a crown in the colour."""
    pen.body(WOOD, [(0.43, 0.6), (0.57, 0.6), (0.62, 0.97), (0.38, 0.97)])
    crown: list[Part] = [
        (0.22, 0.03, 0.76, 0.5),
        (0.05, 0.26, 0.5, 0.72),
        (0.5, 0.26, 0.95, 0.72),
        (0.28, 0.34, 0.72, 0.76),
    ]
    pen.body(colour, *crown)
    pen.solid(tint(colour), (0.3, 0.1, 0.5, 0.24), (0.13, 0.34, 0.28, 0.46))
    pen.solid(shade(colour), (0.6, 0.54, 0.84, 0.68), (0.4, 0.6, 0.56, 0.7))


def flower(pen: Pen, colour: Colour) -> None:
    """A flower on a green stem with two leaves; the petals have the colour."""
    pen.line([(0.5, 0.45), (0.5, 0.95)], INK, 0.11)
    pen.line([(0.5, 0.45), (0.5, 0.95)], LEAF, 0.06)
    pen.body(
        LEAF,
        [(0.5, 0.88), (0.3, 0.66), (0.17, 0.7), (0.28, 0.85)],
        [(0.5, 0.88), (0.7, 0.66), (0.83, 0.7), (0.72, 0.85)],
    )
    centres = [(0.5 + 0.24 * sin(k * pi / 3), 0.34 - 0.22 * cos(k * pi / 3)) for k in range(6)]
    pen.body(colour, *[(x - 0.14, y - 0.13, x + 0.14, y + 0.13) for x, y in centres])
    pen.body(STRAW if colour[2] > 90 or colour[0] < 200 or colour[1] < 150 else WOOD, (0.38, 0.22, 0.62, 0.46))


def house(pen: Pen, colour: Colour) -> None:
    """A house with walls in the colour under a darker gabled roof."""
    pen.body(STEEL, [(0.68, 0.08), (0.79, 0.08), (0.79, 0.32), (0.68, 0.32)])
    pen.body(colour, [(0.12, 0.4), (0.88, 0.4), (0.88, 0.97), (0.12, 0.97)])
    pen.body(shade(shade(colour)), [(0.5, 0.03), (0.97, 0.43), (0.03, 0.43)])
    pen.body(WOOD, [(0.4, 0.64), (0.6, 0.64), (0.6, 0.97), (0.4, 0.97)])
    pen.dot(0.55, 0.82, 0.022, STRAW)
    for x in (0.18, 0.68):
        pen.body(GLASS, [(x, 0.54), (x + 0.15, 0.54), (x + 0.15, 0.72), (x, 0.72)])


def car(pen: Pen, colour: Colour) -> None:
    """A car seen from the side, bonnet to the left."""
    pen.body(
        colour,
        [(0.26, 0.46), (0.38, 0.24), (0.74, 0.24), (0.86, 0.46)],
        [(0.03, 0.48), (0.12, 0.42), (0.94, 0.42), (0.97, 0.5), (0.97, 0.7), (0.03, 0.7)],
    )
    pen.body(
        GLASS,
        [(0.36, 0.43), (0.43, 0.3), (0.53, 0.3), (0.53, 0.43)],
        [(0.6, 0.43), (0.6, 0.3), (0.71, 0.3), (0.77, 0.43)],
    )
    pen.solid(shade(colour), [(0.05, 0.62), (0.95, 0.62), (0.95, 0.69), (0.05, 0.69)])
    pen.dot(0.08, 0.52, 0.04, STRAW)
    for x in (0.26, 0.75):
        pen.dot(x, 0.71, 0.135)
        pen.dot(x, 0.71, 0.065, (208, 208, 214))


def boat(pen: Pen, colour: Colour) -> None:
    """A sailing boat: hull in the colour, sails in its light tone."""
    pen.line([(0.48, 0.06), (0.48, 0.68)], WOOD, 0.05)
    pen.body(tint(colour), [(0.53, 0.06), (0.53, 0.6), (0.9, 0.6)])
    pen.body(PAPER, [(0.43, 0.18), (0.43, 0.6), (0.14, 0.6)])
    pen.body(colour, [(0.03, 0.67), (0.97, 0.67), (0.82, 0.95), (0.2, 0.95)])
    pen.solid(shade(colour), [(0.13, 0.86), (0.87, 0.86), (0.82, 0.95), (0.2, 0.95)])


def mushroom(pen: Pen, colour: Colour) -> None:
    """A mushroom: pale stem, a cap in the colour with light dots."""
    pen.body((244, 232, 210), [(0.37, 0.5), (0.63, 0.5), (0.68, 0.96), (0.32, 0.96)])
    cap = [(0.5 - 0.47 * cos(k * pi / 10), 0.56 - 0.5 * sin(k * pi / 10)) for k in range(11)]
    pen.body(colour, [*cap, (0.8, 0.62), (0.2, 0.62)])
    pen.solid(shade(colour), [(0.05, 0.54), (0.95, 0.54), (0.8, 0.61), (0.2, 0.61)])
    spot = PAPER if min(colour) < 200 else mix(colour, STEEL, 0.35)
    for x, y, r in ((0.5, 0.2, 0.08), (0.27, 0.36, 0.065), (0.73, 0.36, 0.065), (0.5, 0.42, 0.05)):
        pen.dot(x, y, r, spot)


def rocket(pen: Pen, colour: Colour) -> None:
    """An upright rocket: hull in the colour, dark fins, a window and a flame."""
    pen.body((246, 150, 50), [(0.38, 0.78), (0.62, 0.78), (0.5, 0.98)], ink=(200, 80, 40))
    pen.body(
        shade(shade(colour)),
        [(0.34, 0.52), (0.12, 0.72), (0.14, 0.88), (0.36, 0.76)],
        [(0.66, 0.52), (0.88, 0.72), (0.86, 0.88), (0.64, 0.76)],
    )
    side = [(0.5 + 0.21 * sin(k * pi / 16), 0.4 - 0.38 * cos(k * pi / 16)) for k in range(9)]
    pen.body(
        colour, [*side, (0.69, 0.62), (0.62, 0.8), (0.38, 0.8), (0.31, 0.62), *[(1 - x, y) for x, y in reversed(side)]]
    )
    pen.solid(tint(colour), [(0.38, 0.3), (0.43, 0.24), (0.41, 0.7), (0.36, 0.62)])
    pen.body(GLASS, (0.41, 0.3, 0.59, 0.48))


def cup(pen: Pen, colour: Colour) -> None:
    """A steaming cup in the colour, its handle on the right."""
    pen.body(colour, (0.6, 0.42, 0.97, 0.8))
    pen.solid(INK, (0.685, 0.505, 0.885, 0.715))
    pen.solid(PAPER, (0.715, 0.53, 0.855, 0.69))
    pen.body(colour, [(0.08, 0.36), (0.74, 0.36), (0.7, 0.82), (0.6, 0.96), (0.22, 0.96), (0.12, 0.82)])
    pen.body(WOOD, (0.08, 0.28, 0.74, 0.44))
    pen.solid(tint(colour), [(0.17, 0.5), (0.25, 0.51), (0.27, 0.8), (0.21, 0.78)])
    for x in (0.3, 0.5):
        pen.line([(x, 0.22), (x + 0.05, 0.16), (x, 0.1), (x + 0.05, 0.04)], PAPER, 0.045)


def _eyes(pen: Pen, left: float, right: float, y: float, radius: float) -> None:
    for x in (left, right):
        pen.dot(x, y, radius)
        pen.dot(x - 0.015, y - 0.02, radius * 0.36, PAPER)


Drawing = Callable[[Pen, Colour], None]

DRAWINGS: dict[str, Drawing] = {
    "cat": cat,
    "dog": dog,
    "bird": bird,
    "fish": fish,
    "tree": tree,
    "flower": flower,
    "house": house,
    "car": car,
    "boat": boat,
    "mushroom": mushroom,
    "rocket": rocket,
    "cup": cup,
}

# Left, top, right, bottom of each drawing in its unit square (measured on pixels; a test keeps them true).
EXTENTS: dict[str, tuple[float, float, float, float]] = {
    "cat": (0.07, 0.01, 0.99, 1.01),
    "dog": (0.00, 0.07, 1.01, 0.99),
    "bird": (0.00, 0.05, 1.01, 0.98),
    "fish": (-0.01, 0.06, 1.01, 0.92),
    "tree": (0.02, 0.00, 0.98, 0.99),
    "flower": (0.12, -0.04, 0.88, 1.01),
    "house": (0.01, 0.01, 0.99, 0.99),
    "car": (0.01, 0.21, 0.99, 0.85),
    "boat": (0.01, 0.04, 0.99, 0.98),
    "mushroom": (0.01, 0.04, 0.99, 0.99),
    "rocket": (0.09, -0.01, 0.91, 1.00),
    "cup": (0.05, 0.01, 1.00, 0.99),
}
