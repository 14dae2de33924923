"""Hostile, damaged and foreign pictures are judged by their bytes, before anything is decoded."""

from __future__ import annotations

import io
import json
import random
import struct
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

from studio import pictures, png
from studio.errors import BadFile
from studio.gallery import Gallery

A1111 = "a cat\nNegative prompt: blurry\nSteps: 5, Sampler: DDIM, CFG scale: 7, Seed: 3, Size: 64x64, Model: toybox"


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def build(*more: bytes, width: int = 1, height: int = 1) -> bytes:
    """A PNG of the given size whose pixels are never looked at."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(b"\0" * 4))
    return png.SIGNATURE + chunk(b"IHDR", header) + b"".join(more) + data + chunk(b"IEND", b"")


def encoded(form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((32, 24), 50).convert("RGB").save(buffer, form, **options)
    return buffer.getvalue()


BOMB = zlib.compress(b"x" * 50_000_000, 9)
HOSTILE = {
    "text over 1 MB": (build(chunk(b"tEXt", b"parameters\0" + b"x" * 1_000_001)), "text"),
    "texts over 1 MB together": (build(*[chunk(b"tEXt", b"a\0" + b"x" * 400_000)] * 3), "more than 1,000,000"),
    "zTXt bomb": (build(chunk(b"zTXt", b"parameters\0\0" + BOMB)), "more than 1,000,000"),
    "iTXt bomb": (build(chunk(b"iTXt", b"studio\0\1\0\0\0" + BOMB)), "more than 1,000,000"),
    "packed text is not packed": (build(chunk(b"zTXt", b"parameters\0\0nonsense")), "unpacked"),
    "over 64 MP": (build(width=8001, height=8000), "8,001 x 8,000"),
    "the largest sizes": (build(width=2**32 - 1, height=2**32 - 1), "64 megapixels"),
    "no pixels": (build(width=0), "0 x 1"),
    "a length past the end": (build()[:33] + struct.pack(">I4s", 2**31, b"tEXt") + build()[33:], "past the end"),
    "no header": (png.SIGNATURE + chunk(b"IEND", b""), "header"),
    "a damaged text": (build(chunk(b"tEXt", b"a\0b")).replace(b"a\0b", b"a\0c"), "checksum"),
    "too many chunks": (build(*[chunk(b"abcd", b"")] * (png.MAX_CHUNKS + 1)), "chunks"),
    "nothing": (b"", "not a picture"),
    "a pickle": (b"\x80\x04K\x01.", "not a picture"),
    "a GIF": (encoded("GIF"), "choose one of"),
    "a cut JPEG": (encoded("JPEG")[:20], "JPEG"),
    "a JPEG over 64 MP": (
        encoded("JPEG").replace(struct.pack(">HH", 24, 32), struct.pack(">HH", 9000, 9000), 1),
        "9,000 x 9,000",
    ),
    "a cut WebP": (encoded("WEBP")[:25], "cut off"),
    "a WebP over 64 MP": (
        b"RIFF\x1e\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + b"\x1f\x4e\0" * 2 + b"VP8L\0\0\0\0", "20,000 x 20,000",
    ),
    "EXIF over 1 MB": (encoded("WEBP", exif=b"Exif\0\0MM\0*" + b"\0" * 1_000_001), "EXIF"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_file_is_refused_before_it_is_decoded(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, said = HOSTILE[case]
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("the pixels were decoded"))
    gallery = Gallery(tmp_path)
    for door in (gallery.read, gallery.keep):
        with pytest.raises(BadFile, match=said):
            door(data)
    assert list(tmp_path.iterdir()) == []


def test_a_file_over_the_byte_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "MAX_BYTES", 50)
    with pytest.raises(BadFile, match="bytes"):
        pictures.inspect(build())


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_every_way_to_cut_a_file_is_noticed(form: str, tmp_path: Path) -> None:
    data = encoded(form)
    for cut in [*range(1, 64), len(data) // 2, len(data) - 20]:
        with pytest.raises(BadFile):
            pictures.decode(data[:cut])


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["PNG", "JPEG", "WEBP"]), st.integers(0, 2**32), st.integers(1, 20))
def test_damage_ends_in_a_picture_or_in_one_sentence(form: str, seed: int, count: int) -> None:
    chance, data = random.Random(seed), bytearray(encoded(form))
    for _ in range(count):
        data[chance.randrange(len(data))] = chance.randrange(256)
    try:
        assert pictures.decode(bytes(data)).size == pictures.inspect(bytes(data))[:2]
    except BadFile as error:
        assert str(error).endswith(".") and "\n" not in str(error)


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0")))
def test_texts_survive_a_png_and_pillow_reads_the_same(text: str) -> None:
    data = png.encode(Image.new("RGB", (2, 3)), {"parameters": text, "studio": text})
    assert png.inspect(data) == (2, 3, {"parameters": text, "studio": text})
    assert png.encode(Image.new("RGB", (2, 3)), {"parameters": text, "studio": text}) == data
    with Image.open(io.BytesIO(data)) as image:
        assert image.text == {"parameters": text, "studio": text}  # type: ignore[attr-defined]


def test_texts_too_large_to_read_are_not_written() -> None:
    with pytest.raises(BadFile, match="1,000,000"):
        png.encode(Image.new("RGB", (1, 1)), {"a": "x" * 1_000_000})


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", ["text", "itxt"])
def test_the_text_of_every_kind_of_chunk_is_read(kind: str, packed: bool, tmp_path: Path) -> None:
    info = PngInfo()
    getattr(info, f"add_{kind}")("parameters", A1111.replace("cat", "cát"), zip=packed)
    request = Gallery(tmp_path).read(encoded("PNG", pnginfo=info)).request
    assert request is not None and (request.prompt, request.steps) == ("a cát", 5)


@pytest.mark.parametrize("form", ["JPEG", "WEBP"])
@pytest.mark.parametrize(
    "comment",
    [
        b"UNICODE\0" + A1111.encode("utf-16-be"),
        b"UNICODE\0" + A1111.encode("utf-16-le"),
        b"ASCII\0\0\0" + A1111.encode(),
        b"\0" * 8 + A1111.encode(),
    ],
)
def test_the_comment_of_other_formats_is_read(form: str, comment: bytes, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = comment
    recalled = Gallery(tmp_path).read(encoded(form, exif=exif))
    assert recalled.infotext == A1111
    assert recalled.request is not None and recalled.request.seed == 3


def test_a_picture_is_kept_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    gallery = Gallery(tmp_path)
    assert gallery.kept(gallery.keep(encoded("JPEG", exif=exif))).size == (24, 32)


def with_json(text: str, parameters: str | None = A1111) -> bytes:
    info = PngInfo()
    info.add_itxt("studio", text)
    if parameters:
        info.add_text("parameters", parameters)
    return encoded("PNG", pnginfo=info)


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{", "null", '{"schema": 2}', '{"schema": 1}', '{"schema": 1, "request": []}', "[" * 100_000,
        '{"schema": 1, "request": {"prompt": "\\ud800"}}', '{"schema": 1, "request": {"options": {"a": NaN}}}',
        '{"schema": 1, "request": {"path": "/etc/passwd"}}', '{"schema": 1, "request": {"steps": 1e999}}',
    ],
)  # fmt: skip
def test_json_that_does_not_fit_gives_way_to_the_text(text: str, tmp_path: Path) -> None:
    recalled = Gallery(tmp_path).read(with_json(text))
    assert recalled.request is not None and recalled.request.seed == 3
    assert len(recalled.notices) == 1 and "its text was read instead" in recalled.notices[0]
    assert Gallery(tmp_path).read(with_json(text, None)).request is None
    assert recalled.model_dump_json()


def test_our_json_wins_over_the_text(tmp_path: Path) -> None:
    saved = json.dumps({"schema": 1, "request": {"prompt": "a dog", "seed": 9}, "more": "from a later version"})
    recalled = Gallery(tmp_path).read(with_json(saved))
    assert recalled.request is not None and (recalled.request.prompt, recalled.request.seed) == ("a dog", 9)


@pytest.mark.parametrize("text", [None, "just words", '{"sui_image_params": {}}'])
def test_a_picture_without_settings_says_so(text: str | None, tmp_path: Path) -> None:
    info = PngInfo()
    if text:
        info.add_text("parameters", text)
    recalled = Gallery(tmp_path).read(encoded("PNG", pnginfo=info))
    assert recalled.request is None and recalled.infotext == text and len(recalled.notices) == 1
