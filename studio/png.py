"""PNG at the level of its chunks: what a file says of itself is checked before anything decodes it.

A hostile file is small on disk and large in memory: a header of 100,000 x 100,000 pixels, a compressed text of
gigabytes, a chunk that claims more bytes than there are. All three are refused here, from the bytes alone.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from studio.errors import BadFile

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_PIXELS = 64_000_000
MAX_TEXT = 1_000_000  # bytes, of all texts of one file together, unpacked
MAX_CHUNKS = 100_000
_TEXT_KINDS = (b"tEXt", b"zTXt", b"iTXt")


class Facts(NamedTuple):
    """What a picture's file says of itself: its size in pixels and its texts by keyword."""

    width: int
    height: int
    texts: dict[str, str]


def encode(image: Image.Image, texts: Mapping[str, str]) -> bytes:
    """Write a PNG with texts; the same picture and texts give the same bytes, whenever and wherever it is called.

    Raises:
        BadFile: the texts are larger than `inspect` would read back.
    """
    size = sum(len(key) + len(text.encode()) for key, text in texts.items())
    if size > MAX_TEXT:
        raise BadFile(f"The texts of this picture take {size:,} bytes; a picture may carry {MAX_TEXT:,}.")
    info = PngInfo()
    for key, text in texts.items():
        if text.isascii():
            info.add_text(key, text)
        else:
            info.add_itxt(key, text)
    plain = image.copy() if image.mode in {"L", "RGB", "RGBA"} else image.convert("RGB")
    plain.info = {}  # what the picture brought along (a profile, a comment) is no part of the render
    buffer = io.BytesIO()
    plain.save(buffer, "PNG", pnginfo=info, compress_level=6)
    return buffer.getvalue()


def inspect(data: bytes) -> Facts:
    """Check a whole PNG file, chunk by chunk, and read its size and texts without decoding the picture.

    Raises:
        BadFile: no PNG, cut off, damaged, over `MAX_PIXELS` pixels or over `MAX_TEXT` bytes of text.
    """
    if not data.startswith(SIGNATURE):
        raise BadFile("This is not a PNG file: it does not begin as one.")
    chunks = _chunks(data)
    width, height = _size(*next(chunks))
    texts: dict[str, str] = {}
    room = MAX_TEXT
    for kind, body in chunks:
        if kind in _TEXT_KINDS:
            key, raw, encoding = _text(kind, body, room)
            room -= len(raw) + len(key)
            texts[key] = raw.decode(encoding, "replace")
    return Facts(width, height, texts)


def _chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Walk the chunks up to IEND; a length is believed only if the file holds that many bytes."""
    view, at = memoryview(data), len(SIGNATURE)
    for _ in range(MAX_CHUNKS):
        if at + 12 > len(data):
            raise BadFile("This PNG is cut off: it ends before its last chunk.")
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 8 + length
        if end + 4 > len(data):
            raise BadFile(f"This PNG is cut off or damaged: a chunk of {length:,} bytes goes past the end of the file.")
        if kind in _TEXT_KINDS and length > MAX_TEXT:
            raise BadFile(f"This PNG has a text of {length:,} bytes; at most {MAX_TEXT:,} are read.")
        if zlib.crc32(view[at + 4 : end]) != int.from_bytes(view[end : end + 4], "big"):
            raise BadFile("This PNG is damaged: the checksum of a chunk does not fit.")
        yield kind, view[at + 8 : end]
        if kind == b"IEND":
            return
        at = end + 4
    raise BadFile(f"This PNG has more than {MAX_CHUNKS:,} chunks, which no picture needs.")


def _size(kind: bytes, body: memoryview) -> tuple[int, int]:
    if kind != b"IHDR" or len(body) != 13:
        raise BadFile("This PNG is damaged: it does not begin with its header.")
    width, height = struct.unpack_from(">II", body)
    check_pixels(width, height)
    return width, height


def check_pixels(width: int, height: int) -> None:
    """Refuse a picture that would be too large once decoded.

    Raises:
        BadFile: no pixels at all or over `MAX_PIXELS`.
    """
    if not 0 < width * height <= MAX_PIXELS:
        limit = MAX_PIXELS // 1_000_000
        raise BadFile(f"This picture says it is {width:,} x {height:,} pixels; up to {limit} megapixels are opened.")


def _text(kind: bytes, body: memoryview, room: int) -> tuple[str, bytes, str]:
    """Split a text chunk into keyword, bytes (unpacked, at most `room`) and encoding."""
    key, _, rest = bytes(body).partition(b"\0")
    packed, encoding = kind == b"zTXt", "latin-1"
    if kind == b"zTXt":
        rest = rest[1:]  # the compression method, always 0
    elif kind == b"iTXt":
        packed, encoding = rest[:1] == b"\1", "utf-8"
        _language, _, rest = rest[2:].partition(b"\0")
        _translated, _, rest = rest.partition(b"\0")
    text = _unpack(rest, room) if packed else rest
    if len(text) + len(key) > room:
        raise BadFile(f"The texts of this PNG take more than {MAX_TEXT:,} bytes; they are not read.")
    return key.decode("latin-1"), text, encoding


def _unpack(packed: bytes, room: int) -> bytes:
    try:
        return zlib.decompressobj().decompress(packed, room + 1)  # one byte more tells that there is more
    except zlib.error as error:
        raise BadFile(f"This PNG is damaged: a compressed text cannot be unpacked ({error}).") from error
