"""What an adapter file is, from tensor names and shapes: naming scheme, family, algorithm, rank. No torch."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field

from pipelines.errors import BadFile, shorten
from pipelines.weights.header import Header
from pipelines.weights.names import plain

# Width of the text that cross-attention reads, which decides between the Stable Diffusion families.
FAMILY_BY_WIDTH = {128: "toybox", 768: "sd15", 1024: "sd2", 2048: "sdxl"}
TITLES = {"toybox": "Toybox", "sd15": "SD 1.5", "sd2": "SD 2", "sdxl": "SDXL"}

# Names that only another family's layers have; these files are recognised to be refused in a clear sentence.
_OTHERS = (
    ("FLUX", re.compile(r"double_blocks|single_transformer_blocks|single_blocks")),
    ("Qwen-Image", re.compile(r"transformer_blocks[._]\d+[._](img_mlp|txt_mlp|img_mod)")),
    ("Krea 2", re.compile(r"(text_fusion|txtfusion)[._]")),
    ("Anima", re.compile(r"llm_adapter|blocks[._]\d+[._](adaln_modulation|(cross|self)_attn[._][qkv]_proj)")),
    # Anchored: "transformer_blocks" stands inside the U-Nets' own names too.
    (
        "a diffusion transformer",
        re.compile(
            r"^(base_model\.model\.)?((lora_)?transformer[._]|diffusion_model\.(?!input_|middle_|output_))"
            r"|^lora_unet_(joint_|transformer_)?blocks_"
        ),
    ),
)
_ALGORITHMS = (
    ("LoHa", ("hada_w1_a", "hada_w2_a")),
    ("LoKr", ("lokr_w1", "lokr_w1_a", "lokr_w2", "lokr_w2_a")),
    ("DoRA", ("dora_scale", "lora_magnitude_vector")),
    ("OFT", ("oft_blocks", "oft_diag")),
    ("GLoRA", ("a1.weight", "b1.weight")),
    ("IA3", ("on_input",)),
    ("Tucker LoCon", ("lora_mid.weight",)),
    ("full difference", (".diff", ".diff_b")),
)


@dataclass(frozen=True)
class Identity:
    """What a file is, as far as its header tells."""

    family: str | None  # a key of TITLES
    other: str | None  # the name of a family that is not supported
    scheme: str | None  # kohya, diffusers
    algorithm: str | None  # LoRA, or a kind that is named in messages
    rank: int | None  # the largest
    trigger: str = ""
    licence: str | None = None
    title: str = ""


def identify(header: Header) -> Identity:
    """Say what an adapter file is; shapes decide, metadata only fills in what they cannot say."""
    names = list(header.tensors)
    other = next((title for title, pattern in _OTHERS if any(pattern.search(name) for name in names)), None)
    ranks = [info.shape[0] for name, info in header.tensors.items() if _DOWN.search(name) and info.shape]
    metadata = header.metadata
    return Identity(
        family=None if other else _family(header),
        other=other,
        scheme=_scheme(names),
        algorithm=_algorithm(names) or ("LoRA" if ranks else None),
        rank=max(ranks, default=None),
        trigger=metadata.get("modelspec.trigger_phrase", ""),
        licence=metadata.get("modelspec.license") or None,
        title=metadata.get("modelspec.title") or metadata.get("ss_output_name") or "",
    )


_DOWN = re.compile(r"(lora_down|lora_A|lora\.down|lora_linear_layer\.down)(\.\w+)?\.weight$")
_CROSS = re.compile(r"attn2[._](processor[._])?to_[kv]")


def _family(header: Header) -> str | None:
    for name, info in header.tensors.items():
        if _CROSS.search(name) and _DOWN.search(name) and len(info.shape) >= 2:
            return FAMILY_BY_WIDTH.get(info.shape[1])
    if any(name.startswith(("lora_te2_", "text_encoder_2.")) for name in header.tensors):
        return "sdxl"
    declared = " ".join(
        header.metadata.get(key, "") for key in ("modelspec.architecture", "ss_base_model_version")
    ).lower()
    for mark, family in (("toybox", "toybox"), ("xl", "sdxl"), ("v1", "sd15"), ("v2", "sd2")):
        if mark in declared:
            return family
    return None


def _scheme(names: list[str]) -> str | None:
    if any(name.startswith(("lora_unet_", "lora_te")) for name in names):
        return "kohya"
    if any(_DOWN.search(name) for name in names):
        return "diffusers"
    return None


def _algorithm(names: list[str]) -> str | None:
    for title, marks in _ALGORITHMS:
        if any(mark in name for name in names for mark in marks):
            return title
    return None


@dataclass
class Scaling:
    """How one component's `LoraConfig` scales its factors."""

    alpha: float | None = None  # None: the rank
    patterns: dict[str, float] = field(default_factory=dict)  # end of a layer's path -> its own alpha
    rank_stabilised: bool = False  # divided by the root of the rank (arXiv 2312.03732)

    def alpha_of(self, layer: str) -> float | None:
        """The alpha of a layer, its path within the component."""
        for ending, alpha in self.patterns.items():
            if layer == ending or layer.endswith("." + ending):
                return alpha
        return self.alpha


def declared_scalings(header: Header) -> dict[str, Scaling]:
    """What `lora_adapter_metadata` says, by component; empty where a file has none.

    diffusers writes one LoraConfig a component: "unet.lora_alpha", "unet.alpha_pattern" and so on.

    Raises:
        BadFile: an alpha is no finite number, or a pattern is more than the end of a path.
    """
    try:
        config = json.loads(header.metadata.get("lora_adapter_metadata", "{}"))
    except (ValueError, RecursionError):
        return {}
    found: dict[str, Scaling] = {}
    for key, value in config.items() if isinstance(config, dict) else ():
        component, _, name = key.rpartition(".")
        scaling = found.setdefault(component or "unet", Scaling())
        if name == "lora_alpha":
            scaling.alpha = _finite(key, value)
        elif name == "alpha_pattern" and isinstance(value, dict):
            scaling.patterns = {_ending(path): _finite(path, alpha) for path, alpha in value.items()}
        elif name == "use_rslora":
            scaling.rank_stabilised = value is True
    return found


def _finite(key: str, value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e6:  # also refuses NaN
        return float(value)
    raise BadFile(
        f"The adapter's own description gives “{shorten(key)}” as {shorten(repr(value))}; a number is needed."
    )


def _ending(path: str) -> str:
    """peft takes these as regular expressions, which nothing writes and which a hostile file could make endless."""
    if not re.fullmatch(r"[\w.]+", path):
        raise BadFile(
            f"The adapter's own description names layers by “{shorten(path)}”, which is not the end of a path."
        )
    return plain(path)
