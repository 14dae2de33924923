"""`studio bases get ID`: a base from the Hub, safetensors only, resumed where the last try ended.

The Hub's library throws a half-fetched file away when its process ends, so the files are fetched here, with its own
`http_get`, into a staging folder named by the exact revision. Only a complete base is moved to `bases/`.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pipelines.weights import read_header
from studio import files
from studio.errors import BadRequest, DownloadFailed, StorageFull, shorten

if TYPE_CHECKING:
    from huggingface_hub import HfApi

INDEX, CARD = "model_index.json", "studio.json"
SKIPPED = frozenset({"safety_checker"})  # the studio loads none, and it is a gigabyte
SPARE = 200 << 20  # bytes left free
_ID = re.compile(r"(?!.*(--|\.\.))\w[\w.-]{0,94}/\w[\w.-]{0,94}", re.ASCII)
_PATH = re.compile(r"(?!\.)[\w.-]+(/(?!\.)[\w.-]+)?")
_WEIGHTS = re.compile(r"(diffusion_pytorch_model|model)(?P<half>\.fp16)?(-\d{5}-of-\d{5})?\.safetensors")
_SHARDS = re.compile(r"\.safetensors\.index(?P<half>\.fp16)?\.json$")
_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM})
_ANY_WEIGHTS = (".safetensors", ".bin", ".msgpack", ".ckpt", ".pt", ".h5")


class Part(NamedTuple):
    """One file: path in the repository, bytes, and the SHA-256 that the Hub gives for large ones."""

    path: str
    size: int
    sha256: str | None


class Plan(NamedTuple):
    """What would be fetched."""

    name: str
    revision: str
    licence: str | None
    gated: bool
    parts: tuple[Part, ...]

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(part.size for part in self.parts)


def plan(identifier: str, *, half: bool = False, file: str | None = None, endpoint: str | None = None) -> Plan:
    """Look a base up and choose its files; `identifier` is `owner/name` or `owner/name@revision`.

    Raises:
        BadRequest: no such form of name, or several single files to choose from.
        DownloadFailed: not there, not reachable, gated, or without safetensors.
    """
    from huggingface_hub import HfApi

    name, _, revision = identifier.partition("@")
    if not _ID.fullmatch(name):
        raise BadRequest(
            f"“{shorten(identifier)}” is no name of a base on the Hub; write owner/name or owner/name@revision."
        )
    api = HfApi(endpoint=endpoint)
    with _said(identifier):
        info = api.model_info(name, revision=revision or None, files_metadata=True)
        found = {
            one.rfilename: Part(one.rfilename, one.size, one.lfs.sha256 if one.lfs else None)
            for one in info.siblings or ()
            if _PATH.fullmatch(one.rfilename) and one.size is not None
        }
        if not info.sha:
            raise DownloadFailed(f"The Hub names no revision of “{name}”.")
        components = _components(api, name, info.sha) if INDEX in found and not file else None
    chosen = _single(name, found, file) if components is None else _folder(name, found, components, half)
    licence = getattr(info.card_data, "license", None) if info.card_data else None
    return Plan(name, info.sha, licence if isinstance(licence, str) else None, bool(info.gated), tuple(chosen))


def fetch(
    wanted: Plan, data_dir: Path, *, endpoint: str | None = None, report: Callable[[str], None] = lambda line: None
) -> Path:
    """Fetch a plan's files into `bases/<owner>--<name>/`, going on where an earlier try stopped.

    Raises:
        StorageFull: less free disk than the rest needs.
        DownloadFailed: cut off for good, gated, or a file that is not what the Hub announced.
    """
    label = wanted.name.replace("/", "--")
    staging = data_dir / "downloads" / f"{label}@{wanted.revision[:12]}"
    _check_disk(wanted, staging)
    for number, part in enumerate(wanted.parts, 1):
        report(f"{number} of {len(wanted.parts)}: {part.path} ({human(part.size)})")
        _fetch_part(wanted, part, staging, endpoint)
    card = {"title": wanted.name, "version": wanted.revision, "licence": wanted.licence}
    files.write(staging / CARD, json.dumps(card, indent=2).encode())
    return _move(staging, data_dir / "bases" / label)


def human(size: int) -> str:
    """Bytes as people read them."""
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"


def _components(api: HfApi, name: str, revision: str) -> tuple[str, ...]:
    from huggingface_hub.utils import get_session, hf_raise_for_status  # type: ignore[attr-defined]

    response = get_session().get(_url(api.endpoint, name, INDEX, revision), headers=_headers(), timeout=30)
    hf_raise_for_status(response)
    try:
        index = json.loads(response.content)
    except (ValueError, RecursionError) as error:
        raise DownloadFailed(f"“{name}” has a {INDEX} that is not JSON.") from error
    parts = index.items() if isinstance(index, dict) else ()
    used = (key for key, value in parts if isinstance(value, list) and value and value[0] is not None)
    return tuple(key for key in used if key not in SKIPPED)


def _folder(name: str, found: dict[str, Part], components: Sequence[str], half: bool) -> Iterator[Part]:
    """Files of a diffusers folder: every component's configuration, and its weights in one precision."""
    yield found[INDEX]
    for component in components:
        inside = [part for path, part in found.items() if path.startswith(f"{component}/")]
        weights = [part for part in inside if _WEIGHTS.fullmatch(Path(part.path).name)]
        if not weights and any(part.path.endswith(_ANY_WEIGHTS) for part in inside):
            raise DownloadFailed(
                f"“{name}” has no .safetensors weights for its {component}; other formats are not opened."
            )
        halves = {bool(_match(_WEIGHTS, part)["half"]) for part in weights}
        use_half = half if len(halves) == 2 else True in halves
        yield from (part for part in weights if bool(_match(_WEIGHTS, part)["half"]) == use_half)
        yield from (part for part in inside if _is_text(part, use_half))


def _match(pattern: re.Pattern[str], part: Part) -> re.Match[str]:
    match = pattern.fullmatch(Path(part.path).name)
    assert match
    return match


def _is_text(part: Part, half: bool) -> bool:
    """Configurations and tokenizer files; a table of shards only for the weights that are fetched."""
    shards = _SHARDS.search(part.path)
    if shards:
        return bool(shards["half"]) == half
    return part.path.endswith((".json", ".txt"))


def _single(name: str, found: dict[str, Part], file: str | None) -> tuple[Part]:
    choices = [path for path in found if path.endswith(".safetensors") and "/" not in path]
    if file is not None and file not in choices:
        raise BadRequest(f"“{name}” has no file “{shorten(file)}”; choose one of: {', '.join(choices) or 'none'}.")
    if not choices:
        raise DownloadFailed(f"“{name}” has no .safetensors weights; other formats are not opened.")
    if file is None and len(choices) > 1:
        raise BadRequest(f"“{name}” has several files; choose one with --file: {', '.join(choices)}.")
    return (found[file or choices[0]],)


def _check_disk(wanted: Plan, staging: Path) -> None:
    have = sum(path.stat().st_size for path in staging.rglob("*") if path.is_file()) if staging.is_dir() else 0
    existing = next(folder for folder in (staging, *staging.parents) if folder.is_dir())
    free, need = shutil.disk_usage(existing).free, wanted.size - have + SPARE
    if free < need:
        raise StorageFull(f"“{wanted.name}” needs {human(need)} of free disk and {human(free)} are free.")


def _fetch_part(wanted: Plan, part: Part, staging: Path, endpoint: str | None) -> None:
    from huggingface_hub.file_download import http_get

    target = staging / part.path
    if target.is_file() and target.stat().st_size == part.size:
        return
    partial = target.with_name(f"{target.name}.part")
    with _said(wanted.name):
        target.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("ab") as file:
            if file.tell() > part.size:
                file.seek(0)
                file.truncate()
            http_get(
                _url(endpoint, wanted.name, part.path, wanted.revision), file, resume_size=file.tell(),
                headers=_headers(), expected_size=part.size, displayed_filename=part.path,
            )  # fmt: skip
        try:
            _verify(partial, part)
        except DownloadFailed:
            partial.unlink()  # going on from wrong bytes would never end well
            raise
        os.replace(partial, target)


def _verify(path: Path, part: Part) -> None:
    if part.sha256:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != part.sha256:
            raise DownloadFailed(f"“{part.path}” arrived damaged and was deleted; start again.")


def _move(staging: Path, target: Path) -> Path:
    """Put a complete base in its place; an older revision makes way only now."""
    for path in staging.rglob("*.safetensors"):
        read_header(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            old = staging.with_name(f"{staging.name}.old")
            os.replace(target, old)
            os.replace(staging, target)
            shutil.rmtree(old)
        else:
            os.replace(staging, target)
    except OSError as error:
        raise StorageFull(f"The base “{target.name}” cannot be put in its place: {error.strerror or error}.") from error
    return target


def _url(endpoint: str | None, name: str, path: str, revision: str) -> str:
    from huggingface_hub import hf_hub_url

    return hf_hub_url(name, path, revision=revision, endpoint=endpoint)


def _headers() -> dict[str, Any]:
    """The token, if there is one, comes from the environment or from the Hub's own login."""
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    return dict(build_hf_headers())


@contextmanager
def _said(identifier: str) -> Iterator[None]:
    """Say in one sentence what the Hub's library raises in many ways."""
    import httpx2
    from huggingface_hub import errors

    name = shorten(identifier)
    try:
        yield
    except errors.GatedRepoError as error:
        raise DownloadFailed(
            f"“{name}” is gated: accept its terms on its page on the Hub, then set HF_TOKEN or run `hf auth login`."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise DownloadFailed(f"“{name}” is on the Hub, but not this revision.") from error
    except errors.RepositoryNotFoundError as error:
        raise DownloadFailed(f"“{name}” is not on the Hub, or is private and needs HF_TOKEN.") from error
    except (httpx2.HTTPError, OSError, ValueError) as error:
        number = error.errno if isinstance(error, OSError) else None
        if number in _DISK:
            raise StorageFull(f"“{name}” cannot be stored: {os.strerror(number)}.") from error
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DownloadFailed(f"“{name}” could not be fetched; what came so far is kept: {reason}") from error
