"""A pen that draws outlined shapes given in the unit square of an object, at any place and size of a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import ImageDraw

Colour = tuple[int, int, int]
Point = tuple[float, float]
Oval = tuple[float, float, float, float]
Part = Oval | list[Point]  # an ellipse's corners, or a polygon

INK: Colour = (52, 40, 54)
PAPER: Colour = (252, 250, 244)


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """Return `a` with `share` (0..1) of `b` mixed in."""
    return tuple(round(p + (q - p) * share) for p, q in zip(a, b, strict=True))  # type: ignore[return-value]


@dataclass(frozen=True)
class Pen:
    """Draws in unit coordinates (0,0 top left, 1,1 bottom right) of a square at `left`, `top`, `size` pixels wide."""

    draw: ImageDraw.ImageDraw
    left: float
    top: float
    size: float
    flip: bool = False

    @property
    def stroke(self) -> float:
        """Width of the outline in pixels."""
        return max(2.0, self.size * 0.024)

    def at(self, x: float, y: float) -> Point:
        """Pixel position of a unit position."""
        return self.left + (1 - x if self.flip else x) * self.size, self.top + y * self.size

    def solid(self, fill: Colour, *parts: Part) -> None:
        """Fill parts without an outline."""
        for part in parts:
            self._fill(part, fill, 0.0)

    def body(self, fill: Colour, *parts: Part, ink: Colour = INK) -> None:
        """Fill parts as one silhouette: the outline runs around their union."""
        for part in parts:
            self._fill(part, ink, self.stroke)
        for part in parts:
            self._fill(part, fill, 0.0)

    def line(self, points: Sequence[Point], fill: Colour = INK, width: float = 0.03) -> None:
        """Draw a line with round ends, `width` in units."""
        pixels = [self.at(*p) for p in points]
        thick = max(2.0, width * self.size)
        self.draw.line(pixels, fill=fill, width=round(thick), joint="curve")
        r = thick / 2 - 0.5
        for x, y in (pixels[0], pixels[-1]):
            self.draw.ellipse((x - r, y - r, x + r, y + r), fill=fill)

    def dot(self, x: float, y: float, radius: float, fill: Colour = INK) -> None:
        """Fill a circle, `radius` in units."""
        self._fill((x - radius, y - radius, x + radius, y + radius), fill, 0.0)

    def _fill(self, part: Part, fill: Colour, grow: float) -> None:
        if isinstance(part, list):
            pixels = [self.at(*p) for p in part]
            self.draw.polygon(pixels, fill=fill)
            if grow:
                self.draw.line([*pixels, pixels[0], pixels[1]], fill=fill, width=round(2 * grow), joint="curve")
            return
        (xa, ya), (xb, yb) = self.at(part[0], part[1]), self.at(part[2], part[3])
        self.draw.ellipse((min(xa, xb) - grow, ya - grow, max(xa, xb) + grow, yb + grow), fill=fill)
