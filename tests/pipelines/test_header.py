"""The safetensors header: everything damaged or hostile ends in one sentence."""

from __future__ import annotations

import json
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save

from pipelines.errors import BadFile, StudioError, UnsafeFile
from pipelines.weights import read_header
from pipelines.weights.reader import read
from tests.pipelines.files import entry, raw

GOOD = save(
    {"lora_unet_a.lora_down.weight": torch.ones(2, 3), "lora_unet_a.lora_up.weight": torch.ones(4, 2)}, {"note": "x"}
)
LAYERS = {"unet.a": (4, 3)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files")


def test_a_good_header(tmp_path: Path) -> None:
    path = tmp_path / "good.safetensors"
    path.write_bytes(GOOD)
    header = read_header(path)
    assert header.metadata == {"note": "x"}
    assert {name: info.shape for name, info in header.tensors.items()} == {
        "lora_unet_a.lora_down.weight": (2, 3),
        "lora_unet_a.lora_up.weight": (4, 2),
    }
    assert header.offset == len(GOOD) - 4 * (6 + 8)


@pytest.mark.parametrize("length", [0x80, 0x0280, 0x4B50, 0x280])
def test_a_header_length_that_looks_like_a_pickles_first_bytes_is_read(tmp_path: Path, length: int) -> None:
    text = json.dumps({"a": entry([1], 0, 4)}).encode().ljust(length)
    assert list(read_header(raw(tmp_path / "a.safetensors", text, bytes(4))).tensors) == ["a"]


@pytest.mark.parametrize("ending", [".ckpt", ".pt", ".PTH", ".bin", ".pkl"])
def test_a_pickle_is_refused_by_its_ending(tmp_path: Path, ending: str) -> None:
    with pytest.raises(UnsafeFile, match="only .safetensors"):
        read_header(tmp_path / f"model{ending}")


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_renamed_pickle_is_refused_by_its_content(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(pickle.dumps({"weights": list(range(50))}, protocol))
    with pytest.raises(UnsafeFile, match="pickle"):
        read_header(path)


def test_a_renamed_torch_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"x" * 100)
    with pytest.raises(UnsafeFile, match="pickle"):
        read_header(path)


DEEP = b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
BROKEN: dict[str, tuple[Any, bytes, str]] = {
    "no JSON": (b"{nonsense", b"", "not JSON"),
    "no UTF-8": (b'{"\xff": 1}', b"", "not JSON"),
    "too deep": (DEEP, b"", "not JSON|unknown way"),
    "a list": ([1, 2], b"", "not a table"),
    "twice": (b'{"a": {"dtype":"F32","shape":[1],"data_offsets":[0,4]}, "a": 1}', bytes(4), "twice"),
    "no tensor": ({"a": 5}, b"", "unknown way"),
    "negative": ({"a": entry([-1], 0, 4)}, bytes(4), "unknown way"),
    "fraction": ({"a": entry([1.5], 0, 4)}, bytes(4), "unknown way"),
    "truth for one": ({"a": entry([True], 0, 4)}, bytes(4), "unknown way"),
    "absurd shape": ({"a": entry([2**40, 2**40], 0, 4)}, bytes(4), "does not match"),
    "type": ({"a": entry([1], 0, 4, "C99")}, bytes(4), "not known"),
    "overlap": ({"a": entry([1], 0, 4), "b": entry([1], 0, 4)}, bytes(4), "overlap"),
    "gap": ({"a": entry([1], 4, 8)}, bytes(8), "gap"),
    "cut": ({"a": entry([4], 0, 16)}, bytes(8), "truncated"),
    "more": ({"a": entry([1], 0, 4)}, bytes(9), "5 bytes after"),
    "metadata": ({"__metadata__": {"a": 1}}, b"", "not text"),
    "half character": (b'{"__metadata__": {"a": "\\ud800"}}', b"", "half characters"),
    "hidden name": ({"a\x1b[2J": entry([1], 0, 4)}, bytes(4), "cannot be shown"),
}


@pytest.mark.parametrize(("header", "body", "says"), BROKEN.values(), ids=BROKEN.keys())
def test_damage_is_named(tmp_path: Path, header: Any, body: bytes, says: str) -> None:
    path = raw(tmp_path / "broken.safetensors", header, body)
    with pytest.raises(BadFile, match=says) as caught:
        read_header(path)
    assert "broken.safetensors" in str(caught.value)
    str(caught.value).encode()


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="does not exist"):
        read_header(tmp_path / "none.safetensors")
    with pytest.raises(BadFile, match="cannot be read"):
        read_header(tmp_path)


@pytest.mark.parametrize("content", [b"", b"abc", struct.pack("<Q", 0), struct.pack("<Q", 1 << 40), b"\xff" * 8])
def test_a_length_that_cannot_be(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(BadFile, match="not a safetensors file"):
        read_header(path)


def outcome(path: Path, content: bytes) -> None:
    """Either a good read or a sentence, never another error."""
    path.write_bytes(content)
    try:
        file = read(path, LAYERS, "sd15")
    except StudioError as error:
        assert 10 < len(str(error).encode()) < 1000
    else:
        assert set(file.deltas) <= set(LAYERS)


@given(st.data())
def test_any_truncation_is_told(folder: Path, data: st.DataObject) -> None:
    path = folder / "cut.safetensors"
    path.write_bytes(GOOD[: data.draw(st.integers(0, len(GOOD) - 1))])
    with pytest.raises(BadFile):
        read(path, LAYERS, "sd15")


@given(st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), min_size=1, max_size=6))
def test_flipped_bytes_end_in_a_sentence_or_a_good_read(folder: Path, flips: list[tuple[int, int]]) -> None:
    content = bytearray(GOOD)
    for position, value in flips:
        content[position] = value
    outcome(folder / "flipped.safetensors", bytes(content))


SCALARS = st.none() | st.booleans() | st.integers(-2, 2**66) | st.floats() | st.text(max_size=5)
ENTRIES = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "F16", "BF16", "F8_E4M3", "F64", "I8", "U64", "BOOL", "X"]) | SCALARS,
        "shape": st.lists(st.integers(0, 4), max_size=5) | SCALARS,
        "data_offsets": st.lists(st.integers(0, 64), min_size=2, max_size=2) | SCALARS,
    }
)
KEYS = st.sampled_from(
    [f"lora_unet_a.{end}" for end in ("lora_down.weight", "lora_up.weight", "alpha", "dora_scale", "diff")]
    + [f"unet.a.{end}" for end in ("lora_A.weight", "lora_B.default.weight", "lora.down.weight")]
) | st.text(max_size=8)


@given(st.dictionaries(KEYS, ENTRIES | SCALARS, max_size=4), st.dictionaries(st.text(max_size=4), SCALARS, max_size=2))
def test_invented_headers_end_in_a_sentence_or_a_good_read(
    folder: Path, tensors: dict[str, Any], metadata: dict[str, Any]
) -> None:
    header = json.dumps(tensors | ({"__metadata__": metadata} if metadata else {})).encode()
    outcome(folder / "invented.safetensors", struct.pack("<Q", len(header)) + header + bytes(64))


SIZES = {"F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F64": 8, "I8": 1, "U64": 8, "BOOL": 1}


@given(st.lists(st.tuples(KEYS, st.sampled_from(sorted(SIZES)), st.lists(st.integers(0, 4), max_size=5)), max_size=4))
def test_well_formed_files_of_any_content_end_in_a_sentence_or_a_good_read(
    folder: Path, tensors: list[tuple[str, str, list[int]]]
) -> None:
    header, position = {}, 0
    for key, dtype, shape in {key: (key, dtype, shape) for key, dtype, shape in tensors}.values():
        size = SIZES[dtype] * int(torch.tensor(shape).prod())
        header[key] = entry(shape, position, position + size, dtype)
        position += size
    text = json.dumps(header).encode()
    outcome(folder / "well.safetensors", struct.pack("<Q", len(text)) + text + b"\x01" * position)
