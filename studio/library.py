"""Adapter files on disk: found, named and identified without loading a tensor.

An adapter's name is its path below its folder, with forward slashes and without the ending: `toys/mug`. Where two files
have the same name, the studio's own folder wins, then the others in the order they were given, then `.safetensors`
before other endings; the ones that lose are listed as `toys/mug (2)` and so on, and work under that name.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from pipelines.weights import Identity, identify, read_header
from pipelines.weights.header import PICKLES
from studio import database
from studio.errors import BadFile, StorageFull, UnknownName
from studio.specs import AdapterInfo

ENDING = ".safetensors"
MAX_SIDECAR = 1_000_000  # bytes
MAX_TRIGGER, MAX_TITLE, MAX_WEIGHT = 200, 300, 4.0
_BLOCK = 1 << 20
_log = logging.getLogger(__name__)


class _Stamp(NamedTuple):
    """What changes when a file does; `note` is the sidecar's time."""

    size: int
    mtime_ns: int
    note: int


class Library:
    """The adapters of the studio's own folder and of others that are only read."""

    def __init__(self, folders: Sequence[Path], own: Path, cache: Path | None = None) -> None:
        self._folders = (own, *folders)
        self._cache = cache or own.parent / database.NAME
        self._seen: dict[tuple[Path, _Stamp], AdapterInfo] = {}

    def scan(self) -> list[AdapterInfo]:
        """List every adapter, sorted by name; one that cannot be used says why in `problem`.

        Hashes are shown where they are known already; `info` computes one.
        """
        hashes = self._cached()
        found = []
        for name, path in sorted(self._files().items()):
            if stamp := _stamp(path):
                info = self._identified(name, path, stamp)
                found.append(info.model_copy(update={"hash": hashes.get((_key(path), stamp.size, stamp.mtime_ns))}))
        return found

    def find(self, name: str) -> Path:
        """Where the adapter of that name lies; raises UnknownName with the choices."""
        files = self._files()
        if name not in files:
            raise UnknownName("adapter", name, files)
        return files[name]

    def info(self, name: str) -> AdapterInfo:
        """Everything about one adapter, its hash included (the whole file is read the first time).

        Raises:
            UnknownName: no adapter of that name.
            BadFile: it is gone or cannot be read.
        """
        path = self.find(name)
        stamp = _stamp(path)
        if stamp is None:
            raise BadFile(f"The adapter “{name}” cannot be read.")
        info = self._identified(name, path, stamp)
        return info if info.problem else info.model_copy(update={"hash": self._hash(path, stamp)})

    def _files(self) -> dict[str, Path]:
        """Names to files: first come, first named; then the others of the same name, in the same order."""
        files: dict[str, Path] = {}
        later: list[tuple[str, Path]] = []
        for folder in self._folders:
            for path in _walk(folder):
                name = _text(path.relative_to(folder).with_suffix("").as_posix())
                if name in files:
                    later.append((name, path))
                else:
                    files[name] = path
        for name, path in later:
            count = next(count for count in range(2, len(later) + 3) if f"{name} ({count})" not in files)
            files[f"{name} ({count})"] = path
        return files

    def _identified(self, name: str, path: Path, stamp: _Stamp) -> AdapterInfo:
        key = (path, stamp)
        if key not in self._seen:
            self._seen[key] = _read(path, stamp.size)
        return self._seen[key].model_copy(update={"name": name})

    def _cached(self) -> dict[tuple[str, int, int], str]:
        if not self._cache.exists():  # a look at the library writes nothing
            return {}
        with closing(database.connect(self._cache)) as connection:
            rows = connection.execute("SELECT path, size, mtime_ns, hash FROM adapters").fetchall()
        return {(path, size, mtime_ns): digest for path, size, mtime_ns, digest in rows}

    def _hash(self, path: Path, stamp: _Stamp) -> str:
        known = self._cached().get((_key(path), stamp.size, stamp.mtime_ns))
        if known:
            return known
        digest = autov3(path)
        try:
            with closing(database.connect(self._cache)) as connection:
                connection.execute(
                    "INSERT OR REPLACE INTO adapters (path, size, mtime_ns, hash) VALUES (?, ?, ?, ?)",
                    (_key(path), stamp.size, stamp.mtime_ns, digest),
                )
        except (StorageFull, sqlite3.OperationalError) as error:
            _log.warning("the hash of %s is not remembered: %s", path.name, error)  # it is known all the same
        return digest


def _key(path: Path) -> str:
    """A path as SQLite takes it: file names need not be valid text."""
    return str(path).encode("utf-8", "backslashreplace").decode()


def autov3(path: Path) -> str:
    """SHA-256 of the bytes after a safetensors header: what stays the same when only metadata is edited.

    Raises:
        BadFile: missing, or no safetensors file.
    """
    offset = read_header(path).offset
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            file.seek(offset)
            while block := file.read(_BLOCK):
                digest.update(block)
    except OSError as error:
        raise BadFile(f"“{path.name}” cannot be read: {error.strerror or error}.") from error
    return digest.hexdigest()


def _walk(folder: Path) -> Iterator[Path]:
    """Adapter files below a folder in a fixed order; links that lead out of it and hidden files are passed over."""
    root = folder.resolve()
    for here, folders, names in os.walk(folder):  # links to folders are not followed
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (path for path in _adapters(Path(here), names) if path.resolve().is_relative_to(root))


def _adapters(folder: Path, names: Iterable[str]) -> Iterator[Path]:
    for name in sorted(names, key=lambda name: (not name.lower().endswith(ENDING), name)):
        ending = os.path.splitext(name)[1].lower()
        if not name.startswith(".") and (ending == ENDING or ending in PICKLES):
            yield folder / name


def _stamp(path: Path) -> _Stamp | None:
    """None where the file has gone since the folder was read."""
    try:
        status = path.stat()
    except OSError:
        return None
    sidecar = path.with_suffix(".json")
    try:
        note = sidecar.stat().st_mtime_ns
    except OSError:
        note = 0
    return _Stamp(status.st_size, status.st_mtime_ns, note)


def _read(path: Path, size: int) -> AdapterInfo:
    """Identify one file; every way to be broken ends in `problem`, so that it never hides the others."""
    plain = AdapterInfo(name=path.stem, title=_text(path.stem), family=None, hash=None, size=size, problem=None)
    try:
        identity = identify(read_header(path))
    except BadFile as error:
        return plain.model_copy(update={"problem": _text(str(error))})
    note = _sidecar(path.with_suffix(".json"))
    return plain.model_copy(
        update={
            "title": _text(identity.title)[:MAX_TITLE] or plain.title,
            "family": identity.family,
            "trigger": (_text(note.get("activation text")) or _text(identity.trigger))[:MAX_TRIGGER],
            "rank": identity.rank,
            "licence": _text(identity.licence) or None,
            "weight": _weight(note.get("preferred weight")),
            "problem": _problem(path, identity),
        }
    )


def _problem(path: Path, identity: Identity) -> str | None:
    name = _text(path.name)
    if identity.other:
        return f"“{name}” is made for {identity.other}, which the studio does not render with."
    if identity.scheme is None and identity.algorithm is None:
        return f"“{name}” holds no adapter: none of its weights has an adapter's name."
    if identity.family is None:
        return f"“{name}” fits no family that the studio renders with."
    return None


def _sidecar(path: Path) -> dict[str, Any]:
    """A1111's notes beside a file; notes that cannot be read are as good as none, since the file works without."""
    try:
        if path.stat().st_size > MAX_SIDECAR:
            return {}
        note = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        _log.warning("the notes %s cannot be read: %s", path.name, error)
        return {}
    return note if isinstance(note, dict) else {}


def _weight(value: object) -> float:
    """A1111 writes 0 where nobody chose a weight."""
    usable = isinstance(value, int | float) and 0 < abs(value) <= MAX_WEIGHT
    return float(value) if usable else 1.0  # type: ignore[arg-type]


def _text(value: object) -> str:
    """Text from a file as something that can be shown: no control characters, no halves of characters."""
    if not isinstance(value, str):
        return ""
    return re.sub(r"[\x00-\x1f\x7f]+", " ", value).encode("utf-8", "replace").decode().strip()
