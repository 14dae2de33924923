"""`<lora:name:weight>` tags in a prompt: adapters as A1111 and its kin write them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pydantic import ValidationError

from studio.errors import shorten
from studio.specs import AdapterInfo, AdapterUse

_TAG = re.compile(r" ?<(?:lora|lyco):([^:<>\n]++)((?::[^:<>\n]*+)*+)>")
_OTHER = re.compile(r"<([a-z]{2,20}):[^:<>\n]++(?::[^:<>\n]*+)*+>")


class Tag(NamedTuple):
    """One adapter as it stands in a text: a name that the grammar can hold, the tag, the hash."""

    name: str
    text: str
    hash: str | None


def written(adapters: Sequence[AdapterUse]) -> tuple[Tag, ...]:
    """Write adapters as tags; weights in A1111's order (text encoder, then denoiser) where the two differ.

    A1111 knows an adapter by its file's name alone, without the folder; two of one name keep their folders.
    """
    stems = [use.name.rpartition("/")[2] for use in adapters]
    return tuple(
        _written(use, stem if stem and stems.count(stem) == 1 else use.name)
        for use, stem in zip(adapters, stems, strict=True)
    )


def _written(use: AdapterUse, name: str) -> Tag:
    name = re.sub(r"[:,<>\x00-\x1f\x7f]", "_", name)
    weights = number(use.weight) if use.text_weight is None else f"{number(use.text_weight)}:{number(use.weight)}"
    return Tag(name, f"<lora:{name}:{weights}>", use.hash)


def number(value: object) -> str:
    """Print a number as shortly as it still reads back the same; anything else as `str` does."""
    short = f"{value:g}" if isinstance(value, float) else str(value)
    return short if not isinstance(value, float) or float(short) == value else repr(value)


def read(prompt: str, hashes: Mapping[str, str]) -> tuple[str, tuple[AdapterUse, ...], tuple[str, ...]]:
    """Split a prompt into its words, its adapters and notices about tags that cannot be followed."""
    adapters, notices = [], []
    for tag in _TAG.finditer(prompt):
        use = _use(tag[1], tag[2], hashes.get(tag[1]))
        if use is None:
            notices.append(f"The tag “{shorten(tag[0].strip())}” does not fit and was left out.")
        else:
            adapters.append(use)
    words = _TAG.sub("", prompt)
    if prompt.startswith("<") and adapters:
        words = words.removeprefix(" ")
    for tag in _OTHER.finditer(words):
        notices.append(f"The tag “{shorten(tag[0])}” is not understood and stays in the prompt.")
    return words, tuple(adapters), tuple(notices)


def _use(name: str, rest: str, digest: str | None) -> AdapterUse | None:
    """Read `:te:unet:dyn`, by place or by name; a lone weight counts for both parts."""
    places, named = [], {}
    for part in rest.split(":")[1:]:
        key, equals, value = part.partition("=")
        if equals:
            named[key.strip()] = value
        else:
            places.append(part)
    text = named.get("te", places[0] if places else "1")
    unet = named.get("unet", places[1] if len(places) > 1 else text)
    try:
        alone = len(places) < 2 and "te" not in named and "unet" not in named
        return AdapterUse.model_validate(
            {"name": name, "hash": digest, "weight": unet, "text_weight": None if alone else text}
        )
    except ValidationError:
        return None


def find(use: AdapterUse, library: Sequence[AdapterInfo]) -> AdapterInfo | None:
    """The library's adapter that a use means: by name, else the only one of that file name, else by hash."""
    for info in library:
        if info.name == use.name:
            return info
    alike = [info for info in library if info.name.rpartition("/")[2] == use.name.rpartition("/")[2]]
    if len(alike) == 1:
        return alike[0]
    same = [info for info in library if use.hash and info.hash and same_hash(use.hash, info.hash)]
    return same[0] if same else None


def same_hash(left: str, right: str) -> bool:
    """Whether two AutoV3 hashes, each possibly cut short, agree."""
    return left.startswith(right) or right.startswith(left)
