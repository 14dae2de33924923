"""Pictures carry their request, byte for byte the same each time; nothing is left of one that could not be saved."""

from __future__ import annotations

import datetime
import errno
import io
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from sd_parsers import ParserManager

from studio import files, infotext
from studio.errors import BadFile, StorageFull
from studio.gallery import Gallery
from studio.specs import AdapterUse, Picture, RenderRequest
from tests.studio.strategies import JSON, REQUEST

REQUEST_1 = RenderRequest(
    prompt="a cat", negative="blurry", seed=7, steps=20, sampler="DDIM", guidance=7.5, width=16, height=16,
    adapters=(AdapterUse(name="toys/mug", hash="0123456789ab", words=("cat",)),),
)  # fmt: skip


def picture(seed: int = 0, size: tuple[int, int] = (16, 16), mode: str = "RGB") -> Image.Image:
    return Image.effect_noise(size, 50 + seed).convert(mode)


def save(
    gallery: Gallery, request: RenderRequest = REQUEST_1, image: Image.Image | None = None, **more: Any
) -> Picture:
    fields: dict[str, Any] = {"infotext_extra": {}, "report": {}, **more}
    return gallery.save(image or picture(), request, **fields)


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.is_file()]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(request_=REQUEST, report=st.dictionaries(st.text("abc"), JSON, max_size=3))
def test_png_to_request_to_png(tmp_path: Path, request_: RenderRequest, report: dict[str, Any]) -> None:
    gallery, image = Gallery(tmp_path), picture()
    first = gallery.path(save(gallery, request_, image, report=report).name)
    recalled = gallery.read(first)
    assert recalled.request == request_ and recalled.notices == ()
    assert recalled.infotext == infotext.format(request_)
    with Image.open(first) as again:
        again.load()
        second = gallery.path(save(gallery, recalled.request, again, report=report).name)
    assert second != first and second.read_bytes() == first.read_bytes()


def test_the_text_alone_gives_the_request_too(tmp_path: Path) -> None:
    gallery = Gallery(tmp_path)
    with Image.open(gallery.path(save(gallery).name)) as image:
        buffer = io.BytesIO()
        info = PngInfo()
        info.add_text("parameters", image.text["parameters"])  # type: ignore[attr-defined]
        image.save(buffer, "PNG", pnginfo=info)
    assert gallery.read(buffer.getvalue()).request == REQUEST_1


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P"])
def test_what_the_picture_brought_along_is_not_saved(tmp_path: Path, mode: str) -> None:
    gallery, image = Gallery(tmp_path), picture(mode=mode)
    plain = gallery.path(save(gallery, image=image).name).read_bytes()
    image.info.update(comment="secret", icc_profile=b"profile", dpi=(72, 72), exif=b"Exif\0\0")
    assert gallery.path(save(gallery, image=image).name).read_bytes() == plain


def test_names_count_up_and_recent_comes_newest_first(tmp_path: Path) -> None:
    gallery = Gallery(tmp_path)
    saved = [save(gallery, REQUEST_1.model_copy(update={"seed": seed})) for seed in (5, 3, 9)]
    saved.append(save(gallery, REQUEST_1.model_copy(update={"image": "a" * 64})))
    for age, one in enumerate(saved):
        os.utime(gallery.path(one.name), (age, age))
    assert [one.name.split("/")[0] for one in saved] == ["txt2img-images"] * 3 + ["img2img-images"]
    assert [one.name.split("/")[2] for one in saved] == ["00000-5.png", "00001-3.png", "00002-9.png", "00000-7.png"]
    assert gallery.recent(3) == saved[:0:-1]
    assert gallery.recent(99) == saved[::-1]
    gallery.path(saved[1].name).write_bytes(b"")
    assert gallery.recent(99) == [saved[3], saved[2], saved[0]]


def test_a_taken_name_is_never_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery = Gallery(tmp_path)
    first = gallery.path(save(gallery).name)
    before = first.read_bytes()
    monkeypatch.setattr("studio.gallery._numbered", lambda folder: iter(()))  # as a second process saw it earlier
    assert save(gallery, image=picture(3)).name.endswith("00001-7.png")
    assert first.read_bytes() == before


def test_another_reader_reads_our_files(tmp_path: Path) -> None:
    gallery = Gallery(tmp_path)
    request = REQUEST_1.model_copy(update={"prompt": "猫, a cat", "options": {"a": "b, Steps: 3"}})
    info = ParserManager().parse(gallery.path(save(gallery, request).name))
    assert info is not None
    assert info.samplers[0].prompts[0].value == "猫, a cat <lora:mug:1>"
    assert info.samplers[0].parameters["seed"] == "7"


def test_the_json_names_no_path_and_no_time(tmp_path: Path) -> None:
    gallery = Gallery(tmp_path)
    with Image.open(gallery.path(save(gallery, report={"a": 1}).name)) as image:
        texts = dict(image.text)  # type: ignore[attr-defined]
    assert json.loads(texts["studio"]) == {
        "schema": 1, "request": REQUEST_1.model_dump(mode="json"), "report": {"a": 1},
    }  # fmt: skip
    assert str(tmp_path) not in "".join(texts.values())
    assert set(texts) == {"parameters", "studio"}


def test_a_long_report_is_cut_by_name(tmp_path: Path) -> None:
    gallery = Gallery(tmp_path)
    path = gallery.path(save(gallery, report={"masks": [0] * 100_000, "scores": [1]}).name)
    with Image.open(path) as image:
        assert json.loads(image.text["studio"])["report"] == {"scores": [1], "left_out": ["masks"]}  # type: ignore[attr-defined]
    assert gallery.read(path).request == REQUEST_1


def test_the_longest_prompts_are_saved_and_read(tmp_path: Path) -> None:
    gallery = Gallery(tmp_path)
    request = REQUEST_1.model_copy(update={"prompt": "\x01,😀:" * 5_000, "negative": "\x02" * 20_000})
    assert gallery.read(gallery.path(save(gallery, request).name)).request == request


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../a.png",
        "txt2img-images/../../studio.sqlite3",
        "/etc/passwd",
        "C:\\a.png",
        "a\0b",
        "out.png",
        "x/.a",
    ],
)
def test_a_name_never_leaves_the_folder(tmp_path: Path, name: str) -> None:
    gallery = Gallery(tmp_path / "data")
    (tmp_path / "data" / "outputs").mkdir(parents=True)
    (tmp_path / "secret.png").write_bytes(b"secret")
    (tmp_path / "data" / "outputs" / "out.png").symlink_to(tmp_path / "secret.png")
    (tmp_path / "data" / "outputs" / ".a").write_bytes(b"")
    with pytest.raises(BadFile, match="no picture"):
        gallery.path(name)


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery = Gallery(tmp_path)
    kept = save(gallery)

    def full(path: Path, data: bytes) -> None:
        path.write_bytes(data[: len(data) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files, "_write_synced", full)
    with pytest.raises(StorageFull, match=r"00001-7\.png.*No space left"):
        save(gallery)
    assert leftovers(tmp_path) == [Path(kept.name).name]


def test_a_file_size_limit_of_the_system_leaves_nothing(tmp_path: Path) -> None:
    """A real failing write: the kernel refuses the second half of the file."""
    code = (
        "import sys; from pathlib import Path; from studio import files; from studio.errors import StorageFull\n"
        "try: files.write(Path(sys.argv[1]), b'x' * 100_000)\n"
        "except StorageFull as error: sys.stdout.write(str(error))"
    )
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))  # noqa: E731
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.png")], capture_output=True, text=True, preexec_fn=limit
    )
    assert "“a.png” cannot be saved" in done.stdout and done.stderr == ""
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("taken", ["outputs", "outputs/txt2img-images/" + datetime.date.today().isoformat()])
def test_a_folder_that_cannot_be_written_is_storage_full(tmp_path: Path, taken: str) -> None:
    (tmp_path / taken).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / taken).write_text("a file where the folder should be")
    with pytest.raises(StorageFull, match="00000-7.png"):
        save(Gallery(tmp_path))


def test_recall_matches_the_library(tmp_path: Path) -> None:
    gallery = Gallery(tmp_path)
    recalled = gallery.read(gallery.path(save(gallery).name), known=())
    assert recalled.request == REQUEST_1
    assert recalled.notices == ("The adapter “toys/mug” is not in the library.",)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match=r"“none\.png” cannot be read"):
        Gallery(tmp_path).read(tmp_path / "none.png")
    with pytest.raises(BadFile, match="cannot be read"):
        Gallery(tmp_path).read(tmp_path)


def test_keep_is_by_content_and_gives_the_same_pixels(tmp_path: Path) -> None:
    gallery = Gallery(tmp_path)
    for form in ("PNG", "JPEG", "WEBP"):
        buffer = io.BytesIO()
        picture().save(buffer, form)
        digest = gallery.keep(buffer.getvalue())
        assert gallery.keep(buffer.getvalue()) == digest
        with Image.open(io.BytesIO(buffer.getvalue())) as original:
            assert gallery.kept(digest).tobytes() == original.tobytes()
        assert gallery.kept_path(digest).read_bytes() == buffer.getvalue()
    assert len(leftovers(tmp_path)) == 3


@pytest.mark.parametrize("digest", ["", "0" * 64, "../" * 22, "0" * 63 + "/"])
def test_a_picture_that_is_not_kept_is_named(tmp_path: Path, digest: str) -> None:
    with pytest.raises(BadFile, match="not kept here"):
        Gallery(tmp_path).kept(digest)
