"""The six backgrounds: each paints a whole picture, with details that follow a random generator."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from PIL import Image, ImageDraw

from .pen import Colour, mix

Painter = Callable[[ImageDraw.ImageDraw, int, Random], None]


def paint(name: str, side: int, rng: Random) -> Image.Image:
    """Return a `side` x `side` RGB picture of the background `name`, which must be a key of `PLACES`."""
    top, bottom, painter = PLACES[name]
    picture = _sky(side, top, bottom)
    painter(ImageDraw.Draw(picture), side, rng)
    return picture


def _sky(side: int, top: Colour, bottom: Colour) -> Image.Image:
    column = Image.new("RGB", (1, 16))
    column.putdata([mix(top, bottom, k / 15) for k in range(16)])
    return column.resize((side, side), Image.Resampling.BILINEAR)


def _hill(draw: ImageDraw.ImageDraw, side: int, across: tuple[float, float], top: float, fill: Colour) -> None:
    centre, width = across
    draw.ellipse(((centre - width) * side, top * side, (centre + width) * side, (2.4 - top) * side), fill=fill)


def _cloud(draw: ImageDraw.ImageDraw, side: int, rng: Random, fill: Colour) -> None:
    x, y, r = rng.uniform(0.1, 0.9) * side, rng.uniform(0.06, 0.2) * side, rng.uniform(0.035, 0.055) * side
    for dx, grow in ((-1.3, 0.8), (0.0, 1.2), (1.3, 0.9)):
        draw.ellipse((x + dx * r - r * grow, y - r * grow, x + dx * r + r * grow, y + r * grow), fill=fill)


def _meadow(draw: ImageDraw.ImageDraw, side: int, rng: Random) -> None:
    for _ in range(2):
        _cloud(draw, side, rng, (250, 252, 255))
    horizon = rng.uniform(0.5, 0.58)
    _hill(draw, side, (rng.uniform(0.0, 0.3), 0.75), horizon, (150, 208, 110))
    _hill(draw, side, (rng.uniform(0.7, 1.0), 0.8), horizon + 0.06, (132, 196, 94))
    draw.rectangle((0, 0.82 * side, side, side), fill=(132, 196, 94))
    for _ in range(9):
        x, y = rng.uniform(0, 1) * side, rng.uniform(0.7, 0.98) * side
        r = 0.008 * side
        draw.ellipse((x - r, y - r, x + r, y + r), fill=rng.choice(((255, 255, 255), (255, 228, 120), (250, 170, 190))))


def _forest(draw: ImageDraw.ImageDraw, side: int, rng: Random) -> None:
    ground = rng.uniform(0.62, 0.7)
    for row, fill in ((0, (52, 104, 80)), (1, (36, 82, 62))):
        shift = rng.uniform(0, 0.2)
        for k in range(6):
            x = (k * 0.2 + shift - 0.05) * side
            top, width = (rng.uniform(0.04, 0.2) + 0.14 * row) * side, rng.uniform(0.11, 0.15) * side
            draw.polygon([(x, top), (x - width, ground * side + 4), (x + width, ground * side + 4)], fill=fill)
    draw.rectangle((0, ground * side, side, side), fill=(72, 92, 54))
    draw.rectangle((0, ground * side, side, (ground + 0.03) * side), fill=(60, 80, 48))
    for _ in range(7):
        x, y, r = rng.uniform(0, 1) * side, rng.uniform(ground + 0.08, 0.98) * side, 0.02 * side
        draw.ellipse((x - r, y - r * 0.5, x + r, y + r * 0.5), fill=(92, 112, 62))


def _beach(draw: ImageDraw.ImageDraw, side: int, rng: Random) -> None:
    x, y, r = rng.uniform(0.1, 0.9) * side, rng.uniform(0.1, 0.2) * side, 0.07 * side
    draw.ellipse((x - r, y - r, x + r, y + r), fill=(255, 240, 150))
    horizon, shore = rng.uniform(0.38, 0.44), rng.uniform(0.6, 0.68)
    draw.rectangle((0, horizon * side, side, side), fill=(38, 132, 190))
    for _ in range(7):
        x, y, w = (
            rng.uniform(0, 1) * side,
            rng.uniform(horizon + 0.03, shore - 0.04) * side,
            rng.uniform(0.03, 0.07) * side,
        )
        draw.line((x - w, y, x + w, y), fill=(120, 190, 224), width=max(2, side // 100))
    draw.ellipse((-0.5 * side, (shore - 0.02) * side, 1.5 * side, 1.9 * side), fill=(240, 246, 246))
    draw.ellipse((-0.5 * side, (shore + 0.015) * side, 1.5 * side, 1.9 * side), fill=(240, 214, 158))
    for _ in range(8):
        x, y, r = rng.uniform(0, 1) * side, rng.uniform(shore + 0.12, 0.98) * side, 0.007 * side
        draw.ellipse((x - r, y - r, x + r, y + r), fill=(214, 182, 126))


def _snow(draw: ImageDraw.ImageDraw, side: int, rng: Random) -> None:
    horizon = rng.uniform(0.5, 0.58)
    for k in range(3):
        x, w = (k * 0.4 + rng.uniform(-0.05, 0.15)) * side, rng.uniform(0.22, 0.3) * side
        top = (horizon - rng.uniform(0.2, 0.32)) * side
        draw.polygon([(x, top), (x - w, (horizon + 0.1) * side), (x + w, (horizon + 0.1) * side)], fill=(150, 172, 200))
        draw.polygon([(x, top), (x - w * 0.3, top + 0.1 * side), (x + w * 0.3, top + 0.1 * side)], fill=(244, 248, 252))
    _hill(draw, side, (rng.uniform(0.1, 0.4), 0.9), horizon, (232, 240, 248))
    _hill(draw, side, (rng.uniform(0.6, 0.9), 0.9), horizon + 0.06, (218, 230, 243))
    draw.rectangle((0, 0.86 * side, side, side), fill=(218, 230, 243))
    for _ in range(22):
        x, y, r = rng.uniform(0, 1) * side, rng.uniform(0, 0.96) * side, 0.008 * side
        draw.ellipse((x - r, y - r, x + r, y + r), fill=(255, 255, 255))


def _city(draw: ImageDraw.ImageDraw, side: int, rng: Random) -> None:
    road = rng.uniform(0.7, 0.76)
    x = -rng.uniform(0, 0.08)
    while x < 1:
        width, top = rng.uniform(0.13, 0.2), rng.uniform(0.14, 0.42)
        wall = rng.choice(((134, 124, 150), (160, 134, 142), (116, 120, 146), (172, 150, 146)))
        draw.rectangle((x * side, top * side, (x + width - 0.012) * side, road * side), fill=wall)
        for wy in range(int((road - top - 0.08) / 0.09)):
            for wx in (0.025, 0.08):
                left, up = (x + wx) * side, (top + 0.04 + wy * 0.09) * side
                draw.rectangle((left, up, left + 0.03 * side, up + 0.04 * side), fill=(250, 226, 150))
        x += width
    draw.rectangle((0, (road - 0.02) * side, side, side), fill=(186, 184, 188))
    draw.rectangle((0, (road + 0.04) * side, side, side), fill=(98, 98, 108))
    for k in range(5):
        left = (k * 0.25 + rng.uniform(0, 0.03)) * side
        draw.rectangle((left, 0.89 * side, left + 0.11 * side, 0.91 * side), fill=(236, 230, 210))


def _night(draw: ImageDraw.ImageDraw, side: int, rng: Random) -> None:
    for _ in range(20):
        x, y, r = rng.uniform(0, 1) * side, rng.uniform(0, 0.62) * side, rng.choice((0.006, 0.009)) * side
        draw.ellipse((x - r, y - r, x + r, y + r), fill=(255, 250, 214))
    x, y, r = rng.uniform(0.12, 0.88) * side, rng.uniform(0.12, 0.2) * side, 0.075 * side
    draw.ellipse((x - r, y - r, x + r, y + r), fill=(250, 240, 196))
    draw.ellipse((x - r * 0.4, y - r * 1.2, x + r * 1.4, y + r * 0.6), fill=(30, 32, 82))
    _hill(draw, side, (rng.uniform(0.1, 0.4), 0.8), rng.uniform(0.6, 0.68), (52, 46, 104))
    _hill(draw, side, (rng.uniform(0.6, 0.9), 0.8), rng.uniform(0.68, 0.74), (42, 36, 86))
    draw.rectangle((0, 0.88 * side, side, side), fill=(42, 36, 86))


# Sky at the top, sky at the bottom, and what stands before it.
PLACES: dict[str, tuple[Colour, Colour, Painter]] = {
    "meadow": ((112, 190, 240), (206, 234, 250), _meadow),
    "forest": ((120, 168, 140), (170, 200, 160), _forest),
    "beach": ((90, 200, 236), (206, 240, 246), _beach),
    "snow": ((176, 200, 226), (224, 234, 244), _snow),
    "city": ((236, 166, 140), (250, 216, 180), _city),
    "night": ((18, 20, 62), (52, 52, 120), _night),
}
