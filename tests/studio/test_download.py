"""A base arrives whole or not at all, from a real server on this machine, and a second try goes on."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from studio import download
from studio.errors import BadRequest, DownloadFailed, StorageFull
from tests.studio.hub import SHA, Hub, serving

INDEX = {
    "_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "V"],
    "tokenizer": ["transformers", "CLIPTokenizer"], "safety_checker": ["x", "y"], "feature_extractor": [None, None],
}  # fmt: skip


def weights(seed: int = 0, size: int = 50_000) -> bytes:
    return save({"w": np.random.default_rng(seed).random(size, np.float32)})


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving() as hub:
        hub.files = {
            "model_index.json": json.dumps(INDEX).encode(), "README.md": b"---", ".gitattributes": b"", "v1.ckpt": b"x",
            "big.safetensors": weights(9), "unet/config.json": b"{}", "tokenizer/vocab.json": b"{}",
            "unet/diffusion_pytorch_model.safetensors": weights(1), "unet/diffusion_pytorch_model.bin": b"x",
            "unet/diffusion_pytorch_model.fp16.safetensors": weights(2), "tokenizer/merges.txt": b"",
            "unet/diffusion_pytorch_model.non_ema.safetensors": weights(3), "vae/config.json": b"{}",
            "vae/diffusion_pytorch_model.safetensors": weights(4), "safety_checker/model.safetensors": weights(5),
            "unet/extra/deep.json": b"{}", "../escape.json": b"{}", "unet/../../escape.json": b"{}",
        }  # fmt: skip
        yield hub


def get(hub: Hub, folder: Path, identifier: str = "owner/name", **more: object) -> Path:
    wanted = download.plan(identifier, endpoint=hub.endpoint, **more)  # type: ignore[arg-type]
    return download.fetch(wanted, folder, endpoint=hub.endpoint)


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("half", "unet"), [(False, ""), (True, ".fp16")])
def test_the_right_files_arrive_and_only_they(hub: Hub, tmp_path: Path, half: bool, unet: str) -> None:
    got = tree(get(hub, tmp_path, half=half))
    card = json.loads(got.pop("studio.json"))
    assert card == {"title": "owner/name", "version": SHA, "licence": "openrail"}
    paths = {
        "model_index.json", "unet/config.json", f"unet/diffusion_pytorch_model{unet}.safetensors", "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors", "tokenizer/vocab.json", "tokenizer/merges.txt",
    }  # fmt: skip
    assert got == {path: hub.files[path] for path in paths}
    assert {path.name for path in tmp_path.iterdir()} == {"bases", "downloads"}
    assert list((tmp_path / "downloads").iterdir()) == []


def test_the_plan_says_what_it_would_take(hub: Hub) -> None:
    wanted = download.plan("owner/name@main", endpoint=hub.endpoint)
    assert (wanted.revision, wanted.licence) == (SHA, "openrail")
    assert wanted.size == sum(len(hub.files[part.path]) for part in wanted.parts)
    assert [path for path, _ in hub.asked] == ["model_index.json"]


def test_shards_come_with_their_table(hub: Hub, tmp_path: Path) -> None:
    unet = [path for path in hub.files if path.startswith("unet/diffusion")]
    for path in unet:
        del hub.files[path]
    shards = {f"unet/diffusion_pytorch_model-0000{i}-of-00002.safetensors": weights(i) for i in (1, 2)}
    tables = (
        "unet/diffusion_pytorch_model.safetensors.index.json",
        "unet/diffusion_pytorch_model.safetensors.index.fp16.json",
    )
    hub.files |= {**shards, tables[0]: b"{}", tables[1]: b"{}"}
    got = tree(get(hub, tmp_path))
    assert got.keys() >= {*shards, tables[0]} and tables[1] not in got


def test_a_cut_connection_is_resumed_at_once(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 50_000)  # what it writes at a time
    path = "unet/diffusion_pytorch_model.safetensors"
    hub.cuts[path] = [120_000]
    assert tree(get(hub, tmp_path))[path] == hub.files[path]
    assert [asked for name, asked in hub.asked if name == path] == [None, "bytes=100000-"]


def test_a_second_try_goes_on_where_the_first_stopped(hub: Hub, tmp_path: Path) -> None:
    path = "unet/diffusion_pytorch_model.safetensors"
    wanted = download.plan("owner/name", endpoint=hub.endpoint)
    staging = tmp_path / "downloads" / f"owner--name@{SHA[:12]}"
    hub.download_error = (503, "")
    with pytest.raises(DownloadFailed, match="what came so far is kept"):
        download.fetch(wanted, tmp_path, endpoint=hub.endpoint)
    (staging / "unet").mkdir(parents=True, exist_ok=True)
    (staging / f"{path}.part").write_bytes(hub.files[path][:70_000])
    (staging / "vae").mkdir(exist_ok=True)
    (staging / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(
        hub.files["vae/diffusion_pytorch_model.safetensors"]
    )
    hub.download_error, hub.asked = None, []
    assert not (tmp_path / "bases").exists()
    assert tree(download.fetch(wanted, tmp_path, endpoint=hub.endpoint))[path] == hub.files[path]
    assert (path, "bytes=70000-") in hub.asked
    assert "vae/diffusion_pytorch_model.safetensors" not in [name for name, _ in hub.asked]


def test_damaged_bytes_are_not_kept(hub: Hub, tmp_path: Path) -> None:
    path = "unet/diffusion_pytorch_model.safetensors"
    hub.digests[path] = "0" * 64
    with pytest.raises(DownloadFailed, match="arrived damaged"):
        get(hub, tmp_path)
    assert not (tmp_path / "bases").exists() and not list(tmp_path.rglob("unet/*model.safetensors*"))
    hub.digests.clear()
    assert tree(get(hub, tmp_path))[path] == hub.files[path]


def test_a_newer_revision_replaces_the_older_whole(hub: Hub, tmp_path: Path) -> None:
    old = get(hub, tmp_path)
    (old / "stale.json").write_text("{}")
    hub.files["vae/diffusion_pytorch_model.safetensors"] = weights(77)
    new = get(hub, tmp_path)
    assert new == old and not (new / "stale.json").exists()
    assert tree(new)["vae/diffusion_pytorch_model.safetensors"] == weights(77)
    assert list((tmp_path / "downloads").iterdir()) == []


def test_single_files_are_chosen_by_name(hub: Hub, tmp_path: Path) -> None:
    del hub.files["model_index.json"]
    assert "big.safetensors" in tree(get(hub, tmp_path))
    hub.files["other.safetensors"] = weights(8)
    with pytest.raises(BadRequest, match="--file: big.safetensors, other.safetensors"):
        get(hub, tmp_path)
    with pytest.raises(BadRequest, match="no file “v1.ckpt”; choose one of: big"):
        get(hub, tmp_path, file="v1.ckpt")
    assert tree(get(hub, tmp_path, file="other.safetensors")).keys() == {"other.safetensors", "studio.json"}


@pytest.mark.parametrize(
    ("error", "said"),
    [((403, "GatedRepo"), "gated"), ((404, "RepoNotFound"), "not on the Hub"), ((500, ""), "could not be fetched")],
)
def test_what_the_hub_refuses_is_one_sentence(hub: Hub, error: tuple[int, str], said: str, tmp_path: Path) -> None:
    for where in ("error", "download_error"):
        hub.error = hub.download_error = None
        setattr(hub, where, error)
        with pytest.raises(DownloadFailed, match=f"“owner/name.*{said}") as caught:
            get(hub, tmp_path)
        assert "\n" not in str(caught.value)


def test_what_cannot_be_used_is_refused_before_it_is_fetched(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("toybox", "a/b/c", "../x", "a b/c", "-", "owner/name/../../x"):
        with pytest.raises(BadRequest, match="owner/name"):
            get(hub, tmp_path, name)
    with pytest.raises(DownloadFailed, match="not this revision"):
        get(hub, tmp_path, "owner/name@none")
    with monkeypatch.context() as full:
        full.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(100, 99, 1))  # type: ignore[attr-defined]
        with pytest.raises(StorageFull, match=r"needs 210\.\d MB|needs 0\.2 GB"):
            get(hub, tmp_path)
    for path in [path for path in hub.files if path.startswith("unet/") and path.endswith(".safetensors")]:
        del hub.files[path]
    with pytest.raises(DownloadFailed, match="no .safetensors weights for its unet"):
        get(hub, tmp_path)
    hub.files = {"v1.ckpt": b"x", "README.md": b""}
    with pytest.raises(DownloadFailed, match="no .safetensors"):
        get(hub, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_nothing_listens(tmp_path: Path) -> None:
    with pytest.raises(DownloadFailed, match="could not be fetched"):
        download.plan("owner/name", endpoint="http://127.0.0.1:9")


def test_the_command_takes_the_token_from_the_environment(hub: Hub, tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.endpoint,
        "HF_TOKEN": "hf_secret",
        "HF_HOME": str(tmp_path / "home"),
    }
    command = [sys.executable, "-m", "studio", "--data-dir", str(tmp_path / "data"), "bases", "get", "owner/name"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert SHA in done.stderr and "openrail" in done.stderr and "Ready: --base owner/name" in done.stderr
    assert {headers.get("authorization") for headers in hub.headers} == {"Bearer hf_secret"}
    assert "hf_secret" not in done.stderr + done.stdout
    assert (tmp_path / "data" / "bases" / "owner--name" / "model_index.json").is_file()
