"""The A1111 `parameters` text, both ways.

    a cat and a dog <lora:mug:0.8>
    Negative prompt: blurry
    Steps: 20, Sampler: DDIM, CFG scale: 7, Seed: 1, Size: 128x128, Model: toybox, Composition: merge, Version: Studio 1

The grammar cannot say everything (a prompt line that begins with “Negative prompt:”, an adapter's words, control
characters). So `format` reads its own text back with the public grammar and puts what did not survive, exactly, into
one quoted field `Studio`. Other programs see an ordinary text; ours gets the same request from every text it wrote.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from pydantic import ValidationError

from studio import tags
from studio.errors import shorten
from studio.specs import SCHEMA, AdapterInfo, RenderRequest

NEGATIVE = "Negative prompt:"
EXACT = "Studio"
# Text field -> request field. What is not here (count, pictures, method options) goes by its own rule or by EXACT.
FIELDS = {
    "Steps": "steps",
    "Sampler": "sampler",
    "Schedule type": "schedule",
    "CFG scale": "guidance",
    "Seed": "seed",
    "Model": "base",
    "VAE": "vae",
    "Denoising strength": "strength",
    "Clip skip": "clip_skip",
    "CFG Rescale": "guidance_rescale",
    "Composition": "method",
}
OPTIONS = "Composition options"
HASHES = "Lora hashes"
RESERVED = frozenset({*FIELDS, "Size", OPTIONS, HASHES, EXACT, "Version"})
# Below three fields a last line counts as prompt: A1111's rule. Ours always has Model, Composition and Version.
FEWEST_FIELDS = 3

# Possessive, and tried at one place per comma: linear in the text, unlike A1111's own expression (hostile files).
_KEY = re.compile(r"\s*+(\w[\w \-/]++):\s*+")
_QUOTED = re.compile(r'"(?:\\.|[^\\"])*+"\s*+(?=,|\Z)')
_SIZE = re.compile(r"(\d{1,6})x(\d{1,6})")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


class Parsed(NamedTuple):
    """A text taken apart: the two prompts as they stand (tags included) and the last line's fields, unquoted."""

    prompt: str
    negative: str
    fields: dict[str, str]


def format(request: RenderRequest, extra: Mapping[str, str] | None = None) -> str:  # contract name
    """Write a request as A1111 text; `extra` adds fields (hashes of models) that no request holds."""
    written = tags.written(request.adapters)
    fields = _fields(request)
    fields |= {key: value for key, value in (extra or {}).items() if key not in RESERVED}
    if hashes := ", ".join(f"{tag.name}: {tag.hash[:12]}" for tag in written if tag.hash):
        fields[HASHES] = hashes
    plain = _assemble(request, written, fields)
    read, _ = to_request(parse(plain))
    wanted, got = request.model_dump(mode="json"), read.model_dump(mode="json")
    lost = {name: wanted[name] for name in wanted if wanted[name] != got[name]}
    if not lost:
        return plain
    return _assemble(request, written, {**fields, EXACT: json.dumps(lost, ensure_ascii=False)})


def parse(text: str) -> Parsed:
    """Take any A1111 text apart; a text without a parameters line is all prompt. Never fails."""
    lines = text.replace("\r\n", "\n").strip("\n").split("\n")
    fields = _parse_fields(lines[-1])
    if len(fields) >= FEWEST_FIELDS:
        lines.pop()
    else:
        fields = {}
    start = next((i for i, line in enumerate(lines) if line.lstrip().startswith(NEGATIVE)), len(lines))
    negative = "\n".join(lines[start:]).lstrip().removeprefix(NEGATIVE).removeprefix(" ")
    return Parsed("\n".join(lines[:start]), negative, fields)


def to_request(parsed: Parsed, known: Iterable[AdapterInfo] | None = None) -> tuple[RenderRequest, tuple[str, ...]]:
    """Make a request of a parsed text; what does not fit is left out and said in a notice.

    `known` is what the library has: names from elsewhere are then matched to it by name, file name and hash.
    """
    prompt, adapters, notices = tags.read(parsed.prompt, _hashes(parsed.fields.get(HASHES, "")))
    values: dict[str, Any] = {"prompt": prompt, "negative": parsed.negative, "adapters": adapters}
    values |= {name: parsed.fields[key] for key, name in FIELDS.items() if parsed.fields.get(key)}
    if size := _SIZE.fullmatch(parsed.fields.get("Size", "")):
        values["width"], values["height"] = size.groups()
    if values.get("seed") == "-1":
        del values["seed"]
    for key in (OPTIONS, EXACT):
        given = json_object(parsed.fields[key]) if key in parsed.fields else {}
        if given is None:
            notices += (f"The field “{key}” cannot be read and was left out.",)
        elif key == OPTIONS and given:
            values["options"] = given
        else:  # the exact field is the whole truth about what it names
            values |= given
    if parsed.fields and "base" not in values:
        notices += ("The text names no base; check which one is set.",)
    request, left_out = _validated(values)
    notices += left_out
    if known is not None:
        request, found = match(request, known)
        notices += found
    return request, notices


def match(request: RenderRequest, known: Iterable[AdapterInfo]) -> tuple[RenderRequest, tuple[str, ...]]:
    """Match a request's adapters to the library's by name, file name and hash; say what is missing or another file."""
    library, notices = tuple(known), []
    adapters = []
    for use in request.adapters:
        found = tags.find(use, library)
        adapters.append(use.model_copy(update={"name": found.name}) if found else use)
        if found is None:
            notices.append(f"The adapter “{shorten(use.name)}” is not in the library.")
        elif use.hash and found.hash and not tags.same_hash(use.hash, found.hash):
            notices.append(f"The adapter “{shorten(use.name)}” is another file here than the one this picture used.")
    return request.model_copy(update={"adapters": tuple(adapters)}), tuple(notices)


def _fields(request: RenderRequest) -> dict[str, str]:
    """The last line in A1111's order; a field at its default is left out where A1111 leaves it out."""
    size = f"{request.width}x{request.height}" if request.width and request.height else None
    values: dict[str, Any] = {
        "Steps": request.steps,
        "Sampler": request.sampler,
        "Schedule type": request.schedule,
        "CFG scale": request.guidance,
        "Seed": request.seed,
        "Size": size,
        "Model": request.base,
        "VAE": request.vae,
        "Denoising strength": request.strength if request.image else None,
        "Clip skip": request.clip_skip if request.clip_skip != 1 else None,
        "CFG Rescale": request.guidance_rescale or None,
        "Composition": request.method,
        OPTIONS: json.dumps(request.options, ensure_ascii=False) if request.options else None,
    }
    return {key: tags.number(value) for key, value in values.items() if value is not None}


def _assemble(request: RenderRequest, written: tuple[tags.Tag, ...], fields: Mapping[str, str]) -> str:
    prompt = " ".join(filter(None, [_soften(request.prompt), *(tag.text for tag in written)]))
    # A1111 and sites read the hashes by their bare colons and commas.
    pairs = [f"{key}: {_quote(value, bare=key == HASHES)}" for key, value in fields.items()]
    last = ", ".join([*pairs, f"Version: Studio {SCHEMA}"])
    negative = f"{NEGATIVE} {_soften(request.negative)}" if request.negative else ""
    return "\n".join(filter(None, [prompt, negative, last]))


def _soften(text: str) -> str:
    """What other readers are shown of a prompt: they stumble over control characters and a second “Negative prompt:”.

    The words themselves are not lost: a prompt that this changes stands in the exact field.
    """
    return _CONTROL.sub(" ", text.replace("\r\n", "\n")).replace(NEGATIVE, "Negative prompt :")


def _quote(value: str, *, bare: bool = False) -> str:
    if value and value == value.strip() and not re.search(r'[,:"\n\x00-\x1f\x7f]', value):
        return value
    quoted = json.dumps(value, ensure_ascii=False)
    # Readers that split at every comma and colon (most) must not find fields inside a value.
    return quoted if bare else quoted.replace(",", "\\u002c").replace(":", "\\u003a")


def _parse_fields(line: str) -> dict[str, str]:
    fields, at = {}, 0
    while at < len(line):
        key = _KEY.match(line, at)
        quoted = _QUOTED.match(line, key.end()) if key else None
        if quoted:
            end = quoted.end()
        else:
            end = line.find(",", key.end() if key else at)
            end = len(line) if end < 0 else end
        if key:
            value = line[key.end() : end].strip()
            fields[key[1].strip()] = _unquote(value) if quoted else value
        at = end + 1
    return fields


def _unquote(value: str) -> str:
    try:
        text = json.loads(value)
        text.encode("utf-8")  # JSON can spell half a surrogate pair, which is no text
    except ValueError:
        return value
    return str(text)


def _hashes(text: str) -> dict[str, str]:
    pairs = (item.rpartition(":") for item in text.split(","))
    return {name.strip(): value.strip() for name, _, value in pairs if re.fullmatch(r"\s*[0-9a-f]{12,64}\s*", value)}


def json_object(text: str) -> dict[str, Any] | None:
    """Read a JSON object from a file nobody vouches for; None where it is anything else or cannot be written again."""
    try:
        value = json.loads(text)
        # Python reads NaN, half surrogate pairs and deep nesting that nothing could write out again.
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8")
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _validated(values: dict[str, Any]) -> tuple[RenderRequest, tuple[str, ...]]:
    try:
        return RenderRequest.model_validate(values), ()
    except ValidationError as error:
        wrong = {str(problem["loc"][0]): problem["msg"] for problem in error.errors()}
    notices = tuple(
        f"“{shorten(ascii(name)[1:-1])}” = {shorten(ascii(values[name]))} does not fit and was left out: {message}."
        for name, message in wrong.items()
    )
    return RenderRequest.model_validate({key: value for key, value in values.items() if key not in wrong}), notices
