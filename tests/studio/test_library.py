"""Every adapter has one name that is always the same, and a broken file is listed with its reason."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from studio import database
from studio.errors import BadFile, UnknownName
from studio.library import Library, autov3

DOWN = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k.lora_down.weight"


def adapter(
    path: Path, *, width: int = 768, rank: int = 4, metadata: dict[str, str] | None = None, fill: float = 0
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    down, up = np.full((rank, width), fill, np.float16), np.zeros((32, rank), np.float16)
    save_file({DOWN: down, DOWN.replace("down.weight", "up.weight"): up}, path, metadata)
    return path


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library([tmp_path / "one", tmp_path / "two"], own=tmp_path / "data" / "adapters")


def test_names_are_paths_without_the_ending(library: Library, tmp_path: Path) -> None:
    places = {"mug": "data/adapters/mug", "toys/red/mug": "one/toys/red/mug", "v1.5": "two/v1.5", "猫": "two/猫"}
    for place in places.values():
        adapter(tmp_path / f"{place}.safetensors")
    (tmp_path / "one" / "notes.txt").write_text("no adapter")
    adapter(tmp_path / "one" / ".hidden.safetensors")
    adapter(tmp_path / "one" / ".git" / "mug.safetensors")
    assert [info.name for info in library.scan()] == sorted(places)
    for name, place in places.items():
        assert library.find(name) == tmp_path / f"{place}.safetensors"


def test_an_empty_library_writes_nothing(library: Library, tmp_path: Path) -> None:
    assert library.scan() == []
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UnknownName, match="“mug”.*none are installed"):
        library.find("mug")


def test_an_unknown_name_gets_the_choices(library: Library, tmp_path: Path) -> None:
    adapter(tmp_path / "one" / "mug.safetensors")
    for name in ("muk", "../one/mug", str(tmp_path / "one" / "mug"), "mug.safetensors"):
        with pytest.raises(UnknownName, match="choose one of: mug"):
            library.find(name)


def test_of_two_with_one_name_the_own_folder_wins_and_none_is_lost(library: Library, tmp_path: Path) -> None:
    two, one = adapter(tmp_path / "two" / "mug.safetensors"), adapter(tmp_path / "one" / "mug.safetensors")
    own = adapter(tmp_path / "data" / "adapters" / "mug.safetensors")
    natural = adapter(tmp_path / "two" / "mug (2).safetensors")
    (tmp_path / "two" / "mug.pt").write_bytes(b"\x80\x04.")
    places = {info.name: library.find(info.name) for info in library.scan()}
    assert places == {
        "mug": own, "mug (2)": natural, "mug (3)": one, "mug (4)": two, "mug (5)": tmp_path / "two" / "mug.pt",
    }  # fmt: skip


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(["data/adapters", "one", "two", "one/sub"]), unique=True), st.data())
def test_names_do_not_depend_on_when_a_file_came(
    tmp_path_factory: pytest.TempPathFactory, places: list[str], data: st.DataObject
) -> None:
    names = []
    for order in (places, data.draw(st.permutations(places))):
        root = tmp_path_factory.mktemp("library")
        for place in order:
            adapter(root / place / "mug.safetensors")
        library = Library([root / "one", root / "two"], own=root / "data" / "adapters")
        names.append({info.name: library.find(info.name).relative_to(root) for info in library.scan()})
    assert names[0] == names[1] and len(names[0]) == len(places)


def test_links_that_leave_the_folder_are_passed_over(library: Library, tmp_path: Path) -> None:
    outside = adapter(tmp_path / "elsewhere" / "secret.safetensors")
    inside = adapter(tmp_path / "one" / "mug.safetensors")
    (tmp_path / "one" / "leak.safetensors").symlink_to(outside)
    (tmp_path / "one" / "folder").symlink_to(outside.parent)
    (tmp_path / "one" / "alias.safetensors").symlink_to(inside)
    (tmp_path / "one" / "dangling.safetensors").symlink_to(tmp_path / "none.safetensors")
    assert [info.name for info in library.scan()] == ["alias", "mug"]


def test_what_is_known_of_a_file(library: Library, tmp_path: Path) -> None:
    metadata = {"modelspec.title": "My\nmug", "modelspec.trigger_phrase": "sks mug", "modelspec.license": "CC0-1.0"}
    path = adapter(tmp_path / "one" / "mug.safetensors", rank=8, metadata=metadata)
    (info,) = library.scan()
    assert (info.title, info.trigger, info.licence, info.rank) == ("My mug", "sks mug", "CC0-1.0", 8)
    assert (info.family, info.size, info.weight, info.problem) == ("sd15", path.stat().st_size, 1.0, None)
    path.with_suffix(".json").write_text(json.dumps({"activation text": "the mug", "preferred weight": 0.7}))
    (info,) = library.scan()
    assert (info.trigger, info.weight) == ("the mug", 0.7)


@pytest.mark.parametrize(
    "note",
    [
        b"\xff", b"{", b"[]", b"[" * 100_000, b'{"activation text": 3, "preferred weight": "x"}',
        b'{"preferred weight": 99}', b'{"preferred weight": NaN}', b'{"preferred weight": 0}',
    ],
)  # fmt: skip
def test_bad_notes_change_nothing(library: Library, tmp_path: Path, note: bytes) -> None:
    path = adapter(tmp_path / "one" / "mug.safetensors")
    plain = library.scan()
    path.with_suffix(".json").write_bytes(note)
    assert library.scan() == plain


def test_a_broken_file_is_listed_with_its_reason(library: Library, tmp_path: Path) -> None:
    folder = tmp_path / "one"
    good = adapter(folder / "good.safetensors").read_bytes()
    (folder / "cut.safetensors").write_bytes(good[:-5])
    (folder / "empty.safetensors").write_bytes(b"")
    (folder / "pickle.ckpt").write_bytes(b"\x80\x04.")
    save_file({"weight": np.zeros(3, np.float32)}, folder / "other.safetensors")
    save_file(
        {"lora_unet_double_blocks_0_img_mlp_0.lora_down.weight": np.zeros((4, 8), np.float32)},
        folder / "flux.safetensors",
    )
    adapter(folder / "wide.safetensors", width=999)
    problems = {info.name: info.problem for info in library.scan()}
    assert problems.pop("good") is None
    said = {
        "cut": "truncated",
        "empty": "0 bytes",
        "pickle": "pickle",
        "other": "no adapter",
        "flux": "FLUX",
        "wide": "no family",
    }
    assert all(said[name] in (problem or "") for name, problem in problems.items()) and problems.keys() == said.keys()
    assert library.info("cut").hash is None


def test_a_name_that_is_no_text_does_not_hide_the_rest(library: Library, tmp_path: Path) -> None:
    path = adapter(tmp_path / "one" / "mug.safetensors")
    os.rename(path, os.fsencode(tmp_path / "one") + b"/\xff.safetensors")
    adapter(tmp_path / "one" / "mug.safetensors")
    names = [info.name for info in library.scan()]
    assert names == ["?", "mug"]
    assert library.info("?").hash == library.info("mug").hash


def test_the_hash_is_of_the_bytes_after_the_header_and_is_remembered(library: Library, tmp_path: Path) -> None:
    path = adapter(tmp_path / "one" / "mug.safetensors", fill=1)
    assert library.scan()[0].hash is None
    digest = library.info("mug").hash
    length = int.from_bytes(path.read_bytes()[:8], "little")
    assert digest == hashlib.sha256(path.read_bytes()[8 + length :]).hexdigest() == autov3(path)
    later = Library([tmp_path / "one"], own=tmp_path / "data" / "adapters")
    assert later.scan()[0].hash == digest
    assert (tmp_path / "data" / database.NAME).exists()
    adapter(path, fill=1, metadata={"note": "edited"})
    assert later.scan()[0].hash is None and later.info("mug").hash == digest
    adapter(path, fill=2)
    assert later.info("mug").hash != digest


def test_a_hash_that_cannot_be_remembered_is_still_given(library: Library, tmp_path: Path) -> None:
    path = adapter(tmp_path / "one" / "mug.safetensors")
    (tmp_path / "data").write_text("a file where the data folder should be")
    assert library.info("mug").hash == autov3(path)


def test_a_missing_file_has_no_hash(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="none.safetensors"):
        autov3(tmp_path / "none.safetensors")
