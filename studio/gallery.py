"""Pictures on disk: written with the request inside, read back into a request.

A PNG carries two texts: `parameters`, which A1111 and its kin read, and `studio`, the request as JSON with a schema
version. The second is the truth; the first is read where the second is missing. Neither holds a path or a time.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image
from pydantic import ValidationError

from studio import files, infotext, pictures, png
from studio.errors import BadFile, shorten
from studio.specs import SCHEMA, AdapterInfo, Picture, RenderRequest, Spec

OUTPUTS, INPUTS = "outputs", "inputs"
TEXT, JSON = "parameters", "studio"
MAX_REPORT = 64_000  # characters of JSON
_NAME = re.compile(r"(\d{5,})-(\d+)\.png")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_log = logging.getLogger(__name__)


class Recalled(Spec):
    """What a picture says about how it was made; `request` is None where it says nothing that can be followed."""

    request: RenderRequest | None
    infotext: str | None
    notices: tuple[str, ...] = ()


class Gallery:
    """The pictures of one data folder: `outputs/` is written by renders, `inputs/` keeps what people bring."""

    def __init__(self, root: Path) -> None:
        self.outputs = root / OUTPUTS
        self.inputs = root / INPUTS

    def save(
        self,
        image: Image.Image,
        request: RenderRequest,
        *,
        infotext_extra: Mapping[str, str],
        report: Mapping[str, Any],
    ) -> Picture:
        """Write one picture of a resolved request and name it `<kind>/<date>/<counter>-<seed>.png`.

        `request` is this picture's alone (its own seed, count 1), so that it makes the same bytes again. `report`
        holds JSON values and nothing that changes from run to run, so that the same request gives the same bytes.

        Raises:
            StorageFull: the disk is full or cannot be written; no part of the file is left.
        """
        saved = {
            "schema": SCHEMA,
            "request": request.model_dump(mode="json"),
            "report": _summary(report),
        }
        text = infotext.format(request, infotext_extra)
        data = png.encode(image, {TEXT: text, JSON: json.dumps(saved, ensure_ascii=False, allow_nan=False)})
        kind = "img2img-images" if request.image else "txt2img-images"
        folder = self.outputs / kind / datetime.date.today().isoformat()
        path = write_next(folder, request.seed or 0, data)
        name = path.relative_to(self.outputs).as_posix()
        return Picture(name=name, seed=request.seed or 0, width=image.width, height=image.height)

    def path(self, name: str) -> Path:
        """Find a saved picture by its name below the outputs folder.

        Raises:
            BadFile: no such picture, or the name leads out of the folder.
        """
        parts = PurePosixPath(name).parts
        inside = bool(parts) and not any(part == ".." or part[:1] in "/." or set(part) & set("\\:\0") for part in parts)
        path = self.outputs.joinpath(*parts) if inside else self.outputs
        # A link could still lead outside, so the real place decides.
        if not path.is_file() or not path.resolve().is_relative_to(self.outputs.resolve()):
            raise BadFile(f"There is no picture “{shorten(name)}” among the outputs.")
        return path

    def read(self, source: Path | bytes, known: Iterable[AdapterInfo] | None = None) -> Recalled:
        """Read how a picture was made, from ours or A1111's text; nothing is decoded, loaded or fetched.

        `known` is what the library has: adapters are then matched to it by name, file name and hash.

        Raises:
            BadFile: missing, not a picture, damaged, or hostile (too many pixels, too much text).
        """
        texts = pictures.inspect(source if isinstance(source, bytes) else _load(source)).texts
        request, notices = _request(texts)
        if request is not None and known is not None:
            request, more = infotext.match(request, known)
            notices += more
        return Recalled(request=request, infotext=texts.get(TEXT), notices=notices)

    def keep(self, data: bytes) -> str:
        """Store a picture that someone brought, as it is, and return its SHA-256, by which requests name it.

        Raises:
            BadFile: not a picture that can be decoded whole.
            StorageFull: it cannot be written.
        """
        pictures.decode(data)
        digest = hashlib.sha256(data).hexdigest()
        path = self.inputs / f"{digest}.{pictures.kind(data)}"
        if not path.exists():
            files.write(path, data)
        return digest

    def kept(self, digest: str) -> Image.Image:
        """Decode a kept picture, upright.

        Raises:
            BadFile: no picture of this digest is kept here.
        """
        return pictures.decode(_load(self.kept_path(digest)))

    def kept_path(self, digest: str) -> Path:
        """Where a kept picture lies; raises BadFile as `kept` does, without decoding."""
        if _DIGEST.fullmatch(digest):
            for ending in pictures.FORMATS:
                if (path := self.inputs / f"{digest}.{ending}").is_file():
                    return path
        raise BadFile(f"The picture {shorten(digest, 16)} is not kept here; bring it in again.")

    def recent(self, count: int) -> list[Picture]:
        """The newest pictures, the newest first."""
        found: list[Picture] = []
        for path in self._newest():
            if len(found) >= count:
                break
            if picture := self._picture(path):
                found.append(picture)
        return found

    def _newest(self) -> Iterator[Path]:
        """Walk day by day, so that a gallery of years costs no more than its last days."""
        days: dict[str, list[Path]] = {}
        for folder in self.outputs.glob("*/????-??-??"):
            days.setdefault(folder.name, []).append(folder)
        for day in sorted(days, reverse=True):
            paths = [path for folder in days[day] for _, path in _numbered(folder)]
            yield from sorted(paths, key=lambda path: (path.stat().st_mtime_ns, path.name), reverse=True)

    def _picture(self, path: Path) -> Picture | None:
        with path.open("rb") as file:
            head = file.read(24)  # signature, length, IHDR, width, height
        if not head.startswith(png.SIGNATURE) or len(head) < 24:
            _log.warning("%s is not a PNG and is not shown", path.name)
            return None
        width, height = int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")
        seed = int(path.stem.partition("-")[2])
        return Picture(name=path.relative_to(self.outputs).as_posix(), seed=seed, width=width, height=height)


def write_next(folder: Path, seed: int, data: bytes) -> Path:
    """Write a picture under the next free `<counter>-<seed>.png` of a folder; raises StorageFull."""
    counter = 1 + max((number for number, _ in _numbered(folder)), default=-1)
    while True:
        path = folder / f"{counter:05d}-{seed}.png"
        try:
            files.write(path, data, replace=False)
        except FileExistsError:  # another process was faster
            counter += 1
        else:
            return path


def _numbered(folder: Path) -> Iterator[tuple[int, Path]]:
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if match := _NAME.fullmatch(path.name):
            yield int(match[1]), path


def _load(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(pictures.MAX_BYTES + 1)
    except OSError as error:
        raise BadFile(f"“{shorten(path.name)}” cannot be read: {error.strerror or error}.") from error


def _request(texts: Mapping[str, str]) -> tuple[RenderRequest | None, tuple[str, ...]]:
    notices: tuple[str, ...] = ()
    if JSON in texts:
        request, trouble = _from_json(texts[JSON])
        if request is not None:
            return request, ()
        notices = (trouble,)
    if TEXT not in texts:
        return None, notices or ("This picture does not say how it was made.",)
    parsed = infotext.parse(texts[TEXT])
    if not parsed.fields:
        return None, (*notices, "This picture's text is not one that A1111 or the studio writes.")
    request, more = infotext.to_request(parsed)
    return request, notices + more


def _from_json(text: str) -> tuple[RenderRequest | None, str]:
    saved = infotext.json_object(text) or {}
    if saved.get("schema") != SCHEMA:
        version = shorten(ascii(saved.get("schema")), 20)
        return None, f"This picture's JSON has schema {version}, not {SCHEMA}; its text was read instead."
    try:
        return RenderRequest.model_validate(saved.get("request")), ""
    except ValidationError as error:
        field = ".".join(str(part) for part in error.errors()[0]["loc"]) or "request"
        return None, f"This picture's JSON does not fit at “{shorten(ascii(field)[1:-1])}”; its text was read instead."


def _summary(report: Mapping[str, Any]) -> dict[str, Any]:
    """The report's entries while they fit; masks and long tables stay out, by name."""
    kept: dict[str, Any] = {}
    left_out, room = [], MAX_REPORT
    for key, value in report.items():
        size = len(json.dumps(value))
        if size <= room:
            kept[key], room = value, room - size
        else:
            left_out.append(key)
    return {**kept, "left_out": left_out} if left_out else kept
