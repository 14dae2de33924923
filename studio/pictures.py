"""Pictures that people bring: PNG, JPEG or WebP, checked by their headers before Pillow decodes them."""

from __future__ import annotations

import io
from typing import Literal

from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from studio import png
from studio.errors import BadFile
from studio.png import Facts

Kind = Literal["png", "jpg", "webp"]
MAX_BYTES = 128 * 2**20
FORMATS = {"png": "PNG", "jpg": "JPEG", "webp": "WEBP"}


def kind(data: bytes) -> Kind:
    """Tell the format from the first bytes, never from a name.

    Raises:
        BadFile: empty, larger than `MAX_BYTES`, or none of the three formats.
    """
    if len(data) > MAX_BYTES:
        raise BadFile(f"This file has {len(data):,} bytes; pictures up to {MAX_BYTES:,} are opened.")
    if data.startswith(png.SIGNATURE):
        return "png"
    if data.startswith(b"\xff\xd8\xff"):
        return "jpg"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    raise BadFile("This file is not a picture the studio reads; choose one of: PNG, JPEG, WebP.")


def inspect(data: bytes) -> Facts:
    """Check a picture's file and read its size and texts; the pixels are not decoded.

    The texts of JPEG and WebP are A1111's EXIF comment, under the same keyword as in a PNG: `parameters`.

    Raises:
        BadFile: not a picture, cut off, too large in pixels or in text.
    """
    form = kind(data)
    if form == "png":
        return png.inspect(data)
    # Before Pillow sees the file: it allocates a WebP's canvas while opening it.
    width, height = _webp_size(data) if form == "webp" else _jpeg_size(data)
    png.check_pixels(width, height)
    with _opened(data, form) as image:
        if image.size != (width, height):
            raise BadFile(f"This {FORMATS[form]} picture is damaged: it gives two different sizes.")
        comment = _comment(image)
    return Facts(width, height, {"parameters": comment} if comment else {})


def decode(data: bytes) -> Image.Image:
    """Decode a picture whole and upright (cameras note how they were held).

    Raises:
        BadFile: as `inspect`, or the pixels themselves are damaged.
    """
    inspect(data)
    form = kind(data)
    with _opened(data, form) as image:
        try:
            image.load()
            return ImageOps.exif_transpose(image)
        except (OSError, SyntaxError, ValueError) as error:  # Pillow's ways to say that data is damaged
            raise BadFile(f"This {FORMATS[form]} picture is damaged: {error}.") from error


def _opened(data: bytes, form: Kind) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=[FORMATS[form]])
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise BadFile(f"This {FORMATS[form]} picture is damaged and cannot be opened.") from error


def _webp_size(data: bytes) -> tuple[int, int]:
    """Read the canvas of the three kinds of WebP from the first chunk."""
    first, body = data[12:16], data[20:30]
    if len(body) < 10:
        raise BadFile("This WebP picture is cut off.")
    if first == b"VP8X":
        return 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
    if first == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if first == b"VP8 ":
        return int.from_bytes(body[6:8], "little") & 0x3FFF, int.from_bytes(body[8:10], "little") & 0x3FFF
    raise BadFile("This WebP picture is damaged: its first part is unknown.")


def _jpeg_size(data: bytes) -> tuple[int, int]:
    """Walk the segments up to the frame header, which alone knows the size."""
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # padding
            at += 1
        elif 0xC0 <= marker <= 0xCF and marker not in {0xC4, 0xC8, 0xCC}:
            return int.from_bytes(data[at + 7 : at + 9], "big"), int.from_bytes(data[at + 5 : at + 7], "big")
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    raise BadFile("This JPEG picture is cut off or damaged: its size is missing.")


def _comment(image: Image.Image) -> str:
    """Read the EXIF comment in which A1111 keeps its text in files that have no text chunks."""
    raw = image.info.get("exif", b"")
    if len(raw) > png.MAX_TEXT:
        raise BadFile(f"This picture carries {len(raw):,} bytes of EXIF; at most {png.MAX_TEXT:,} are read.")
    try:
        comment = image.getexif().get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.UserComment, b"")
    except (OSError, SyntaxError, ValueError, KeyError, TypeError, IndexError, OverflowError):
        return ""  # EXIF that Pillow cannot follow says nothing about how the picture was made
    return _decode_comment(comment) if isinstance(comment, bytes) else str(comment)


def _decode_comment(comment: bytes) -> str:
    """Decode by the eight-byte code in front; EXIF leaves UTF-16's byte order open, so the likelier one is taken."""
    code, body = comment[:8], comment[8:]
    if code != b"UNICODE\0":
        return body.decode("utf-8", "replace").strip("\0")
    big, little = body.decode("utf-16-be", "replace"), body.decode("utf-16-le", "replace")
    return max(big, little, key=lambda text: sum(character < "\u0100" for character in text)).strip("\0")
