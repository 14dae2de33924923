"""Composer: how several adapters shape each denoising step; and the registry of methods."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from pydantic import BaseModel, ValidationError
from torch import Tensor

from pipelines.conditioning import Conditioning, Guidance
from pipelines.errors import BadRequest, UnknownName

if TYPE_CHECKING:
    from pipelines.adapters import Adapter
    from pipelines.base import ComposedPipeline
    from pipelines.start import Step

ALL_FAMILIES = frozenset({"toybox", "sd15", "sd2", "sdxl"})


@dataclass(frozen=True)
class Prompts:
    """The prompts of one render (see `pipelines.text`) and what their encoding depends on."""

    plain: str  # class nouns only
    joint: str  # all triggers
    branches: tuple[str, ...]  # branch i: only trigger i
    negative: str
    images: int
    height: int
    width: int
    guidance: Guidance
    clip_skip: int = 1


class Composer(ABC):
    """How several adapters shape each denoising step. One instance per render, so its attributes are its state."""

    name: ClassVar[str]
    title: ClassVar[str]
    paper: ClassVar[str | None] = None
    families: ClassVar[frozenset[str]] = ALL_FAMILIES
    batchable: ClassVar[bool] = True

    class Options(BaseModel, frozen=True, extra="forbid"):
        """What the user may set."""

    def __init__(self, pipe: ComposedPipeline, adapters: Sequence[Adapter], options: BaseModel) -> None:
        self.pipe, self.adapters, self.options = pipe, tuple(adapters), options

    @abstractmethod
    def installed(self) -> AbstractContextManager[None]:
        """Everything the method changes in the model, undone on exit, error and cancel."""

    @abstractmethod
    def condition(self, prompts: Prompts) -> Conditioning:
        """Encode the branch prompts the method needs; called inside `installed()`."""

    def steer(self, latents: Tensor, step: Step, cond: Conditioning) -> Tensor:
        """Move the latents before the prediction; the default leaves them."""
        return latents

    def predict(self, latents: Tensor, step: Step, cond: Conditioning) -> Tensor:
        """What the scheduler steps on (eps, v or velocity): one call and its guidance, unless overridden."""
        return self.pipe.guide(self.pipe.denoise(latents, step, cond), cond)

    def report(self) -> dict[str, Any]:
        """Masks, scores, cache hits: shown to the user and saved beside the picture."""
        return {}

    @classmethod
    def cost(cls, n: int, steps: int, options: BaseModel) -> float:
        """Rows through the denoiser relative to plain guided sampling (2 rows a step), for `n` adapters."""
        return 1.0


_METHODS: dict[str, type[Composer]] = {}
C = TypeVar("C", bound=type[Composer])


def register(method: C) -> C:
    """Class decorator: make a method known by its name."""
    assert method.name not in _METHODS, f"two methods are called {method.name}"
    _METHODS[method.name] = method
    return method


def catalogue() -> tuple[type[Composer], ...]:
    """Every registered method, in the order of registration."""
    import pipelines.methods  # noqa: F401  (its import lines register the methods)

    return tuple(_METHODS.values())


def find(name: str) -> type[Composer]:
    """The method of this name.

    Raises:
        UnknownName: there is none; lists the choices.
    """
    catalogue()
    if name not in _METHODS:
        raise UnknownName("method", name, _METHODS)
    return _METHODS[name]


def options_of(method: type[Composer], given: dict[str, Any]) -> BaseModel:
    """Check a request's options against the method's own.

    Raises:
        BadRequest: an unknown option or a value out of range; names both.
    """
    try:
        return method.Options(**given)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise UnknownName(f"option of {method.name}", name, method.Options.model_fields) from error
        raise BadRequest(f"Option {name} = {first['input']!r} of {method.name}: {first['msg']}.") from error
