"""Requests, results and events: frozen values that print to JSON and parse from it.

A request says everything that makes a picture and names no path: bases and adapters go by name (and hash), pictures
by the digest under which the studio keeps them.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

SCHEMA: Final = 1
MAX_PROMPT = 20_000
MAX_SEED = 2**32 - 1

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of a picture the studio keeps.")]


class Spec(BaseModel):
    """A frozen value that refuses unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_bytes="base64", val_json_bytes="base64")


class AdapterUse(Spec):
    """One adapter in one request."""

    name: str = Field(min_length=1, max_length=300, description="Name in the library: its path without the ending.")
    hash: str | None = Field(None, pattern=r"^[0-9a-f]{12,64}$", description="AutoV3 hash, to notice another file.")
    weight: float = Field(1.0, ge=-4, le=4, description="Strength in the denoiser.")
    text_weight: float | None = Field(None, ge=-4, le=4, description="Strength in the text encoder; empty: as weight.")
    words: tuple[str, ...] = Field((), max_length=16, description="Its nouns in the prompt; cat#2 is the second cat.")
    trigger: str | None = Field(None, max_length=200, description="Its prompt word; empty: what the library knows.")


class RenderRequest(Spec):
    """What to render. Fields left empty are filled by the base (`studio.engine.resolve`)."""

    version: Literal[1] = SCHEMA
    prompt: str = Field("", max_length=MAX_PROMPT, description="What to draw.")
    negative: str = Field("", max_length=MAX_PROMPT, description="What to keep away.")
    base: str = Field("toybox", min_length=1, max_length=300, description="Name of the base.")
    adapters: tuple[AdapterUse, ...] = Field((), max_length=32, description="The adapters, in order.")
    method: str = Field("merge", max_length=60, description="How the adapters are composed.")
    options: dict[str, Any] = Field(default_factory=dict, description="The method's own options.")
    seed: int | None = Field(None, ge=0, le=MAX_SEED, description="First picture's seed; empty: a new one.")
    count: int = Field(1, ge=1, le=64, description="How many pictures; each next one takes the next seed.")
    steps: int | None = Field(None, ge=1, le=200, description="Sampling steps.")
    guidance: float | None = Field(None, ge=0, le=50, description="Classifier-free guidance scale.")
    guidance_rescale: float = Field(0.0, ge=0, le=1, description="Pulls over-bright guidance back (0.7 for zero-SNR).")
    width: int | None = Field(None, ge=16, le=4096, description="Pixels.")
    height: int | None = Field(None, ge=16, le=4096, description="Pixels.")
    sampler: str | None = Field(None, max_length=60, description="Sampler by its usual name.")
    schedule: str | None = Field(None, max_length=60, description="How the steps are spaced.")
    clip_skip: int = Field(1, ge=1, le=12, description="Text-encoder layers from the end, as A1111 counts them.")
    vae: str | None = Field(None, max_length=300, description="Another VAE by name; empty: the base's own.")
    image: Digest | None = None
    mask: Digest | None = None
    strength: float = Field(0.75, gt=0, le=1, description="How much of a given picture is redrawn.")


class Picture(Spec):
    """One saved picture: its name below the outputs folder, never a path of the machine."""

    name: str
    seed: int
    width: int
    height: int


class RenderResult(Spec):
    """What a render gave: pictures, the request with every field filled, and what is worth knowing."""

    request: RenderRequest
    pictures: tuple[Picture, ...]
    seconds: float = Field(ge=0, description="Wall-clock time, loading included.")
    sampling_seconds: float = Field(ge=0, description="Of these, in the loop and the decoder.")
    rows: int = Field(ge=0, description="Samples sent through the whole denoiser (a guided step of one picture is 2).")
    notices: tuple[str, ...] = ()
    report: dict[str, Any] = Field(default_factory=dict)


class Progress(Spec):
    """Where the work stands; `left` is seconds, None while it cannot be known."""

    kind: Literal["progress"] = "progress"
    phase: Literal["loading", "sampling", "saving"]
    step: int = 0
    total: int = 0
    seconds: float = 0.0
    left: float | None = None


class Preview(Spec):
    """Small JPEG pictures of the current estimate, one for each picture being drawn."""

    kind: Literal["preview"] = "preview"
    step: int
    images: tuple[bytes, ...]


class Notice(Spec):
    """Something the user should know that is no error (a cut prompt, an unknown word)."""

    kind: Literal["notice"] = "notice"
    text: str


class Finished(Spec):
    """The last event of a render that went well."""

    kind: Literal["finished"] = "finished"
    result: RenderResult


class Failed(Spec):
    """The last event of a job that did not; `error` is the class name, `message` its one sentence."""

    kind: Literal["failed"] = "failed"
    error: str
    message: str


class Stopped(Spec):
    """The last event of a job that was cancelled."""

    kind: Literal["stopped"] = "stopped"


RenderEvent = Annotated[Progress | Preview | Notice | Finished, Field(discriminator="kind")]
JobEvent = Annotated[Progress | Preview | Notice | Finished | Failed | Stopped, Field(discriminator="kind")]

JobState = Literal["queued", "running", "done", "failed", "cancelled"]


class BaseInfo(Spec):
    """What is known of a base without loading it."""

    name: str
    title: str
    family: str
    width: int
    height: int
    steps: int
    guidance: float
    sampler: str
    schedule: str
    multiple: int = Field(8, description="Width and height must be divisible by this.")
    licence: str | None = None
    version: str | None = Field(None, description="Changes when the weights change.")
    vocabulary: dict[str, tuple[str, ...]] = Field(default_factory=dict, description="Toybox: every word it knows.")


class AdapterInfo(Spec):
    """One adapter file as the library shows it."""

    name: str
    title: str
    family: str | None = Field(description="By tensor names and shapes; None where no known family fits.")
    hash: str | None = Field(description="AutoV3: SHA-256 of the bytes after the header.")
    trigger: str = ""
    words: tuple[str, ...] = ()
    rank: int | None = None
    size: int = 0
    licence: str | None = None
    weight: float = 1.0
    problem: str | None = Field(None, description="Why the file cannot be used, in one sentence.")


class MethodInfo(Spec):
    """A composition method and the JSON schema of its options."""

    model_config = ConfigDict(populate_by_name=True)

    name: str
    title: str
    summary: str
    paper: str | None
    families: tuple[str, ...]
    schema_: dict[str, Any] = Field(alias="schema", description="JSON schema of the options.")


class Catalogue(Spec):
    """Everything a form can offer."""

    bases: tuple[BaseInfo, ...]
    adapters: tuple[AdapterInfo, ...]
    methods: tuple[MethodInfo, ...]
    samplers: tuple[str, ...]
    schedules: tuple[str, ...]
    vaes: tuple[str, ...] = ()
