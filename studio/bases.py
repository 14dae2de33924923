"""Base name -> loaded pipeline; the only file that decides device, type, attention and offload."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import ValidationError

from pipelines.weights.header import Header, read_header
from pipelines.weights.identify import FAMILY_BY_WIDTH, TITLES
from studio import devices
from studio.errors import BadFile, BadRequest, UnknownName
from studio.settings import Settings
from studio.specs import BaseInfo, Spec

if TYPE_CHECKING:
    from pipelines.base import ComposedPipeline

log = logging.getLogger(__name__)

_DEFAULTS: dict[str, dict[str, Any]] = {
    "toybox": {"width": 128, "height": 128, "steps": 20, "guidance": 4.0, "sampler": "DDIM", "schedule": "Automatic"},
    "sd15": {"width": 512, "height": 512, "steps": 30, "guidance": 7.0, "sampler": "DPM++ 2M", "schedule": "Karras"},
    "sd2": {"width": 768, "height": 768, "steps": 30, "guidance": 7.0, "sampler": "DPM++ 2M", "schedule": "Karras"},
    "sdxl": {"width": 1024, "height": 1024, "steps": 30, "guidance": 6.0, "sampler": "DPM++ 2M", "schedule": "Karras"},
}  # fmt: skip
_CONFIGS = {"sd15": "sd15", "sdxl": "sdxl"}
CARD = "studio.json"  # beside a folder's parts, or `<stem>.json` beside a single file


class Card(Spec):
    """What a base's own JSON may say, beyond what its weights tell."""

    title: str | None = None
    version: str | None = None
    licence: str | None = None
    width: int | None = None
    height: int | None = None
    steps: int | None = None
    guidance: float | None = None
    sampler: str | None = None
    schedule: str | None = None
    prediction_type: str | None = None
    zero_snr: bool | None = None
    vocabulary: dict[str, tuple[str, ...]] = {}

    model_config = {"extra": "ignore", "frozen": True}


class _Found(NamedTuple):
    path: Path
    single: bool


class Bases:
    """The bases of one studio. One base and one extra VAE are kept loaded."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._loaded: tuple[str, ComposedPipeline] | None = None
        self._vae: tuple[tuple[str, str], Any] | None = None

    # ---- what there is, without torch ----------------------------------------------------------------------------

    def names(self) -> tuple[str, ...]:
        """Every base that can be loaded now, Toybox first."""
        return tuple(self._found())

    def info(self, name: str) -> BaseInfo:
        """What is known of a base without loading it.

        Raises:
            UnknownName: there is none of this name; says how to fetch a Hub id.
            BadFile: its files are damaged or of no known family.
        """
        found = self._find(name)
        family, card = self._family(found), self._card(found)
        values = _DEFAULTS[family] | {
            field: value for field in _DEFAULTS[family] if (value := getattr(card, field)) is not None
        }
        return BaseInfo(
            name=name,
            title=card.title or (TITLES["toybox"] if name == "toybox" else name),
            family=family,
            licence=card.licence,
            vocabulary=card.vocabulary,
            version=card.version,
            **values,
        )

    def infos(self) -> tuple[BaseInfo, ...]:
        """Every usable base; damaged ones are logged and left out."""
        usable = []
        for name in self.names():
            try:
                usable.append(self.info(name))
            except BadFile as error:
                log.warning("%s", error)
        return tuple(usable)

    def vaes(self) -> tuple[str, ...]:
        """Names of the VAEs in the data folder's `vaes/`."""
        folder = self._settings.data_dir / "vaes"
        return tuple(sorted(path.stem for path in folder.glob("*.safetensors"))) if folder.is_dir() else ()

    def _found(self) -> dict[str, _Found]:
        found = {"toybox": _Found(self._settings.assets_dir / "toybox" / "base", False)}
        for root in (self._settings.data_dir / "bases", *self._settings.base_dirs):
            for path in sorted(root.rglob("model_index.json")) if root.is_dir() else ():
                relative = path.parent.relative_to(root).as_posix().replace("--", "/", 1)
                found.setdefault(relative, _Found(path.parent, False))
            for path in sorted(root.rglob("*.safetensors")) if root.is_dir() else ():
                if not any(path.is_relative_to(known.path) for known in found.values()):
                    found.setdefault(path.relative_to(root).with_suffix("").as_posix(), _Found(path, True))
        return found

    def _find(self, name: str) -> _Found:
        found = self._found()
        if name in found:
            return found[name]
        if Path(name).suffix.lower() in {".ckpt", ".pt", ".pth", ".bin"}:
            read_header(Path(name))  # raises the sentence about pickles
        error = UnknownName("base", name, found)
        if name.count("/") == 1:
            raise BadRequest(f"{error} To fetch it from the Hub: python -m studio bases get {name}") from error
        raise error

    def _card(self, found: _Found) -> Card:
        path = found.path.with_suffix(".json") if found.single else found.path / CARD
        if not path.is_file():
            return Card()
        try:
            return Card.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise BadFile(f"The card “{path.name}” of a base cannot be read: {str(error).splitlines()[0]}.") from error

    def _family(self, found: _Found) -> str:
        if found.single:
            return _checkpoint_family(found.path.name, read_header(found.path))
        try:
            config = json.loads((found.path / "unet" / "config.json").read_text("utf-8"))
            width = config["cross_attention_dim"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BadFile(f"The base “{found.path.name}” has no readable unet/config.json.") from error
        if width not in FAMILY_BY_WIDTH:
            raise BadFile(f"The base “{found.path.name}” is of no supported family ({', '.join(TITLES.values())}).")
        return FAMILY_BY_WIDTH[width]

    # ---- loading -------------------------------------------------------------------------------------------------

    def load(self, name: str) -> ComposedPipeline:
        """The base's pipeline on its device, ready to sample; kept until another one is asked for.

        Raises:
            UnknownName, BadFile: as `info`; BadFile also where the weights do not fit the family.
            BadRequest: the chosen device or type is not available here.
        """
        if self._loaded is not None and self._loaded[0] == name:
            return self._loaded[1]
        found = self._find(name)
        family = self._family(found)
        self._loaded = None  # two bases at once would need twice the memory
        plan = devices.plan(self._settings, family)
        pipe = _read(found, family, self._card(found), plan, self._settings.assets_dir / "configs")
        devices.place(pipe, plan)
        self._loaded = (name, pipe)
        return pipe

    @contextmanager
    def with_vae(self, pipe: ComposedPipeline, name: str | None) -> Iterator[None]:
        """Decode with another VAE inside the block.

        Raises:
            UnknownName: there is no such VAE.
            BadFile: it is not a VAE of this family.
        """
        if name is None:
            yield
            return
        if name not in self.vaes():
            raise UnknownName("VAE", name, self.vaes())
        key = (name, pipe.family)
        if self._vae is None or self._vae[0] != key:
            self._vae = (key, self._read_vae(pipe, name))
        own, pipe.vae = pipe.vae, self._vae[1]
        try:
            yield
        finally:
            pipe.vae = own

    def _read_vae(self, pipe: ComposedPipeline, name: str) -> Any:
        from diffusers import AutoencoderKL

        path = self._settings.data_dir / "vaes" / f"{name}.safetensors"
        read_header(path)
        config = self._settings.assets_dir / "configs" / _CONFIGS.get(pipe.family, pipe.family) / "vae"
        if not config.is_dir():
            raise BadRequest(f"Another VAE cannot be used with {TITLES[pipe.family]}; leave the VAE empty.")
        try:
            vae = AutoencoderKL.from_single_file(
                str(path), config=str(config.parent), subfolder="vae", local_files_only=True, dtype=pipe.vae.dtype
            )
        except (ValueError, RuntimeError, KeyError) as error:
            raise BadFile(f"“{name}” is not a VAE of the {TITLES[pipe.family]} family.") from error
        return vae.to(pipe.vae.device).eval()


def _checkpoint_family(name: str, header: Header) -> str:
    for key, tensor in header.tensors.items():
        if key.startswith("model.diffusion_model.") and key.endswith("attn2.to_k.weight") and len(tensor.shape) == 2:
            if tensor.shape[1] in FAMILY_BY_WIDTH:
                return FAMILY_BY_WIDTH[tensor.shape[1]]
    raise BadFile(f"“{name}” is not a checkpoint of a supported family ({', '.join(TITLES.values())}).")


def _read(found: _Found, family: str, card: Card, plan: devices.Plan, configs: Path) -> ComposedPipeline:
    from pipelines import sd, sdxl

    classes: dict[str, Any] = {
        "toybox": sd.ToyboxPipeline, "sd15": sd.SDPipeline, "sd2": sd.SD2Pipeline, "sdxl": sdxl.SDXLPipeline,
    }  # fmt: skip
    try:
        with _quiet():
            if found.single:
                pipe = _read_single(found.path, family, classes[family], plan, configs)
            else:
                pipe = _read_folder(found.path, classes[family], plan)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise BadFile(f"The base “{found.path.name}” cannot be loaded: {str(error).splitlines()[0]}") from error
    _set_prediction(pipe, found, card)
    pipe.set_progress_bar_config(disable=True)
    return pipe  # type: ignore[no-any-return]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the libraries' own progress bars, and without a remark on the missing safety checker, which is meant."""
    from diffusers.utils import logging as of_diffusers
    from transformers.utils import logging as of_transformers

    level = of_diffusers.get_verbosity()
    of_diffusers.set_verbosity_error()
    for library in (of_diffusers, of_transformers):
        library.disable_progress_bar()
    try:
        yield
    finally:
        of_diffusers.set_verbosity(level)
        for library in (of_diffusers, of_transformers):
            library.enable_progress_bar()


def _read_folder(path: Path, cls: Any, plan: devices.Plan) -> Any:
    weights = list((path / "unet").glob("*.safetensors"))
    if not weights:
        raise BadFile(f"The base “{path.name}” has no .safetensors weights; pickles (.bin) are never opened.")
    half = all(".fp16." in weight.name for weight in weights)
    extra = {} if "XL" in cls.__name__ else {"safety_checker": None, "requires_safety_checker": False}
    return cls.from_pretrained(
        str(path), dtype=plan.dtype, use_safetensors=True, local_files_only=True,
        variant="fp16" if half else None, **extra,
    )  # fmt: skip


def _read_single(path: Path, family: str, cls: Any, plan: devices.Plan, configs: Path) -> Any:
    if family not in _CONFIGS:
        raise BadFile(f"Single files of {TITLES[family]} are not read; use a diffusers folder.")
    from studio.single_file import tokenizers

    extra = {} if family == "sdxl" else {"safety_checker": None, "requires_safety_checker": False}
    return cls.from_single_file(
        str(path), config=str(configs / _CONFIGS[family]), local_files_only=True, dtype=plan.dtype,
        **tokenizers(family, configs), **extra,
    )  # fmt: skip


def _set_prediction(pipe: Any, found: _Found, card: Card) -> None:
    """Prediction type and zero-terminal-SNR: the card's word, else the marks that v-prediction checkpoints carry."""
    marks = set(read_header(found.path).tensors) if found.single else set()
    prediction = card.prediction_type or ("v_prediction" if "v_pred" in marks else None)
    zero_snr = card.zero_snr if card.zero_snr is not None else ("ztsnr" in marks or None)
    changes: dict[str, Any] = {}
    if prediction is not None:
        changes["prediction_type"] = prediction
    if zero_snr:
        changes |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    if changes:
        pipe.scheduler.register_to_config(**changes)
