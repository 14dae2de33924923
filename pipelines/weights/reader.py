"""Read an adapter file into deltas for a loaded base, and say what was found. Nothing is dropped silently."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pipelines.deltas import Deltas, LowRank, fitted
from pipelines.errors import AdapterMismatch, BadFile, shorten
from pipelines.weights import names
from pipelines.weights.header import Header, read_header
from pipelines.weights.identify import FAMILY_BY_WIDTH, TITLES, Identity, Scaling, declared_scalings, identify


@dataclass(frozen=True)
class Report:
    """What reading a file found."""

    identity: Identity
    matched: tuple[str, ...]  # layer paths that are changed
    ignored: tuple[str, ...]  # keys that change nothing by their nature (e.g. an alpha of a layer without factors)
    missing: tuple[str, ...]  # layers of the components it touches that it leaves alone


@dataclass(frozen=True)
class AdapterFile:
    """The deltas of one file, and the report on them."""

    deltas: Deltas
    report: Report


class _Key(NamedTuple):
    layer: str
    part: str  # down, up, alpha


_PART = re.compile(
    r"\.(?:(?P<down>lora_down|lora_A|lora\.down|lora_linear_layer\.down)"
    r"|(?P<up>lora_up|lora_B|lora\.up|lora_linear_layer\.up))(?:\.[A-Za-z]\w*)??\.weight$"
)


def read(path: Path, layers: Mapping[str, tuple[int, ...]], family: str) -> AdapterFile:
    """Read a LoRA file in kohya's or diffusers' naming.

    Args:
        path: the file; only safetensors.
        layers: every layer of the base: path -> weight shape.
        family: the base's family, for messages.

    Raises:
        BadFile: the file is damaged, or holds values that are not numbers.
        AdapterMismatch: weights that find no layer, another family's file, an algorithm that is not read.
    """
    header = read_header(path)
    identity = identify(header)
    _refuse_strangers(path.name, identity, family)
    table = names.underscored(layers) if identity.scheme == "kohya" else names.dotted(layers)
    parts, unknown = _sort(header, identity, table)
    if unknown:
        raise AdapterMismatch(_no_layer(path.name, unknown, len(header.tensors), family), unknown, identity.family)
    tensors = _load(path, header)
    scalings = declared_scalings(header)
    deltas: Deltas = {}
    ignored: list[str] = []
    for layer, keys in parts.items():
        if "down" not in keys or "up" not in keys:
            if set(keys) == {"alpha"}:
                ignored += keys.values()
                continue
            present = next(iter(keys.values()))
            raise BadFile(f"“{path.name}” is incomplete: “{shorten(present)}” has no counterpart.")
        down, up = fitted(tensors[keys["down"]], tensors[keys["up"]], layers[layer], f"“{path.name}”, {layer}")
        deltas[layer] = LowRank(down, up, _scale(layer, down.shape[0], tensors.get(keys.get("alpha", "")), scalings))
    touched = {layer.partition(".")[0] for layer in deltas}
    missing = tuple(layer for layer in layers if layer.partition(".")[0] in touched and layer not in deltas)
    return AdapterFile(deltas, Report(identity, tuple(deltas), tuple(ignored), missing))


def family_of(text_width: int) -> str:
    """The family whose cross-attention reads text of this width.

    Raises:
        BadFile: none does; names the width.
    """
    if text_width not in FAMILY_BY_WIDTH:
        widths = ", ".join(f"{width} ({TITLES[name]})" for width, name in FAMILY_BY_WIDTH.items())
        raise BadFile(f"A base whose cross-attention reads text of width {text_width} is not known; known: {widths}.")
    return FAMILY_BY_WIDTH[text_width]


def _refuse_strangers(name: str, identity: Identity, family: str) -> None:
    title = TITLES.get(family, family)
    if identity.other:
        raise AdapterMismatch(f"“{name}” is made for {identity.other} and cannot be used with {title}.")
    if identity.algorithm not in (None, "LoRA"):
        raise AdapterMismatch(f"“{name}” is a {identity.algorithm} file; only LoRA files are read so far.")
    if identity.algorithm is None:
        raise AdapterMismatch(f"“{name}” holds no LoRA weights under any known name.")
    if identity.family and identity.family != family:
        raise AdapterMismatch(
            f"“{name}” is made for {TITLES[identity.family]} and cannot be used with {title}.", (), identity.family
        )


def _no_layer(name: str, unknown: list[str], total: int, family: str) -> str:
    shown = ", ".join(shorten(key) for key in unknown[:3]) + (" …" if len(unknown) > 3 else "")
    return f"“{name}”: {len(unknown)} of {total} weights find no layer in {TITLES.get(family, family)}: {shown}."


def _sort(header: Header, identity: Identity, table: Mapping[str, str]) -> tuple[dict[str, dict[str, str]], list[str]]:
    """Group keys by the layer they change; and those that find none."""
    parts: dict[str, dict[str, str]] = {}
    unknown: list[str] = []
    for key in header.tensors:
        split = _split(key)
        layer = None if split is None else table.get(_layer_name(split.layer, identity))
        if split is None or layer is None:
            unknown.append(key)
            continue
        if split.part in parts.setdefault(layer, {}):
            raise BadFile(f"“{shorten(key)}” and “{shorten(parts[layer][split.part])}” change the same layer twice.")
        parts[layer][split.part] = key
    return parts, unknown


def _split(key: str) -> _Key | None:
    if key.endswith(".alpha"):
        return _Key(key[: -len(".alpha")], "alpha")
    found = _PART.search(key)
    if found is None:
        return None
    return _Key(key[: found.start()], "down" if found["down"] else "up")


def _layer_name(layer: str, identity: Identity) -> str:
    if identity.scheme == "kohya":
        return names.flat(layer)
    layer = names.plain(layer.removeprefix("base_model.model."))
    return layer if layer.startswith(("unet.", "text_encoder.", "text_encoder_2.")) else f"unet.{layer}"


def _load(path: Path, header: Header) -> dict[str, Tensor]:
    """Every tensor, copied out of the file, so that no memory map keeps it open (Windows could not replace it)."""
    tensors: dict[str, Tensor] = {}
    try:
        with safe_open(str(path), framework="pt", device="cpu") as file:
            for key in header.tensors:
                tensors[key] = file.get_tensor(key).clone()
    except (SafetensorError, OSError) as error:
        raise BadFile(f"“{path.name}” cannot be read: {error}.") from error
    for key, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise BadFile(f"“{path.name}” stores “{shorten(key)}” as {tensor.dtype}, which is not a weight.")
        if not bool(torch.isfinite(tensor.float()).all()):
            raise BadFile(f"“{path.name}” holds values that are not numbers in “{shorten(key)}”.")
    return tensors


def _scale(layer: str, rank: int, stored: Tensor | None, declared: Mapping[str, Scaling]) -> float:
    """alpha / rank; a stored alpha goes before the file's description, and without either it is the rank."""
    component, _, inner = names.plain(layer).partition(".")
    scaling = declared.get(component, Scaling())
    alpha = scaling.alpha_of(inner)
    if stored is not None:
        if stored.numel() != 1:
            raise BadFile(f"The alpha of {layer} is not one number.")
        alpha = float(stored.float().reshape(()))
    if alpha is None:
        return 1.0
    return alpha / (rank**0.5 if scaling.rank_stabilised else rank)
