"""The safetensors header, read with suspicion: nothing in it is believed before it is checked against the file."""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pipelines.errors import BadFile, UnsafeFile, shorten

MAX_HEADER = 64 << 20  # bytes; the largest real ones (full checkpoints) stay under 1 MiB, merged metadata under 20
PICKLES = frozenset({".ckpt", ".pt", ".pth", ".bin", ".pkl", ".pickle"})
WIDTHS = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
}  # fmt: skip


class TensorInfo(NamedTuple):
    """What the header says of one tensor."""

    dtype: str
    shape: tuple[int, ...]
    start: int  # bytes after the header
    end: int


@dataclass(frozen=True)
class Header:
    """A checked header: free-form metadata, tensors, and where their bytes begin."""

    metadata: dict[str, str]
    tensors: dict[str, TensorInfo]
    offset: int


def read_header(path: Path) -> Header:
    """Read and check a safetensors header without touching the tensors.

    Raises:
        UnsafeFile: the ending or the content is a pickle's.
        BadFile: missing, truncated, or a header that does not describe the file.
    """
    name = path.name
    if path.suffix.lower() in PICKLES:
        raise UnsafeFile(f"“{name}” is a pickle file, which can run code when opened; only .safetensors is read.")
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            first = file.read(8)
            raw = file.read(_header_length(name, first, size))
    except FileNotFoundError as error:
        raise BadFile(f"“{name}” does not exist.") from error
    except OSError as error:
        raise BadFile(f"“{name}” cannot be read: {error.strerror or error}.") from error
    document = _parse(name, raw)
    metadata = document.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise BadFile(f"“{name}” has metadata that is not text.")
    if not all(_writable(text) for pair in metadata.items() for text in pair):
        raise BadFile(f"“{name}” has metadata with half characters, which cannot be shown or stored.")
    tensors = {key: _tensor(name, key, value) for key, value in document.items()}
    _check_layout(name, tensors, size - 8 - len(raw))
    return Header(metadata, tensors, 8 + len(raw))


def _header_length(name: str, first: bytes, size: int) -> int:
    if len(first) < 8:
        raise BadFile(f"“{name}” is not a safetensors file: it has only {size} bytes.")
    (length,) = struct.unpack("<Q", first)
    # Only together: a header of 640 bytes begins like a pickle too.
    if length > MAX_HEADER and (first[:4] == b"PK\x03\x04" or first[:1] == b"\x80"):
        raise UnsafeFile(f"“{name}” holds a pickle, which can run code when opened; only .safetensors is read.")
    if length > MAX_HEADER or length < 2:
        raise BadFile(f"“{name}” is not a safetensors file: its header length of {length} bytes is impossible.")
    if 8 + length > size:
        raise BadFile(f"“{name}” is truncated: its header alone needs {8 + length} bytes and the file has {size}.")
    return int(length)


def _parse(name: str, raw: bytes) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise BadFile(f"“{name}” names a tensor twice.")
        return found

    try:
        document = json.loads(raw.decode("utf-8"), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise BadFile(f"“{name}” is not a safetensors file: its header is not JSON.") from error
    if not isinstance(document, dict):
        raise BadFile(f"“{name}” is not a safetensors file: its header is not a table.")
    return document


def _writable(text: str) -> bool:
    """JSON can spell half of a two-part character, which no output can encode."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _tensor(name: str, key: str, value: object) -> TensorInfo:
    if not key.isprintable():  # half characters and terminal controls; names are shown in messages
        raise BadFile(f"“{name}” names a tensor {ascii(shorten(key))}, with characters that cannot be shown.")
    fields = value if isinstance(value, dict) else {}
    dtype, shape, offsets = fields.get("dtype"), fields.get("shape"), fields.get("data_offsets")
    described = (
        isinstance(dtype, str)
        and isinstance(shape, list)
        and isinstance(offsets, list)
        and len(offsets) == 2
        and all(_whole(number) for number in [*shape, *offsets])
    )
    if not described:
        raise BadFile(f"“{name}” describes its tensor “{shorten(key)}” in an unknown way.")
    if dtype not in WIDTHS:
        raise BadFile(f"“{name}” stores “{shorten(key)}” as {shorten(str(dtype))}, which is not known.")
    start, end = offsets  # type: ignore[misc]
    if end - start != math.prod(shape) * WIDTHS[dtype]:  # type: ignore[arg-type]
        raise BadFile(f"“{name}”: the size of “{shorten(key)}” does not match its shape {shape}.")
    return TensorInfo(dtype, tuple(shape), start, end)  # type: ignore[arg-type]


def _check_layout(name: str, tensors: dict[str, TensorInfo], available: int) -> None:
    """Tensors must follow each other without gap or overlap and end where the file ends."""
    position = 0
    for key, tensor in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].end)):
        if tensor.start != position:
            raise BadFile(f"“{name}”: the bytes of “{shorten(key)}” overlap or leave a gap.")
        position = tensor.end
    if position > available:
        raise BadFile(f"“{name}” is truncated: {position} bytes of weights are announced, {available} are there.")
    if position < available:
        raise BadFile(f"“{name}” has {available - position} bytes after its last weight that nothing describes.")
