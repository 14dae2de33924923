"""Every request survives its A1111 text; texts of other programs are read; a reader nobody here wrote reads ours."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sd_parsers import ParserManager

from studio import infotext
from studio.specs import AdapterInfo, AdapterUse, RenderRequest
from tests.studio.strategies import EXTRA, REQUEST, TEXT

RESOLVED = {"steps": 20, "sampler": "DPM++ 2M", "schedule": "Karras", "guidance": 7.5, "width": 128, "height": 96}
A1111 = """a cat, (sitting:1.2), <lora:mug:0.8>
on a table
Negative prompt: blurry, bad
  second line
Steps: 25, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 6.5, Seed: 965400086, Size: 512x768, \
Model hash: 45dee52b, Model: dream, Denoising strength: 0.4, Clip skip: 2, Lora hashes: "mug: 0123456789ab", \
ADetailer prompt: "a, b: c", Version: v1.10.1"""


@settings(max_examples=100, deadline=None)
@given(REQUEST, EXTRA)
def test_a_request_survives_its_text(request_: RenderRequest, extra: dict[str, str]) -> None:
    text = infotext.format(request_, extra)
    read, notices = infotext.to_request(infotext.parse(text))
    assert read == request_
    assert all("The tag “<" in notice for notice in notices)  # typed into the prompt, and as odd as before


@settings(max_examples=100, deadline=None)
@given(REQUEST)
def test_formatting_what_was_read_gives_the_same_text(request_: RenderRequest) -> None:
    text = infotext.format(request_)
    assert infotext.format(infotext.to_request(infotext.parse(text))[0]) == text


@settings(max_examples=100, deadline=None)
@given(TEXT)
def test_any_text_gives_a_request_and_is_not_lost(text: str) -> None:
    parsed = infotext.parse(text)
    request, _ = infotext.to_request(parsed)
    assert isinstance(request, RenderRequest)
    if not parsed.fields and infotext.NEGATIVE not in text and "<" not in text and "\r" not in text:
        assert request.prompt == text.strip("\n")


@pytest.mark.parametrize(
    "prompt",
    [
        "a cat",
        "a cat,\na dog",
        "猫 at (night:1.2)",
        " two  blanks ",
        'he said "hi"',
        "Steps: 3, Sampler: x, CFG scale: 7",
    ],
)
def test_an_ordinary_request_needs_no_exact_field(prompt: str) -> None:
    request = RenderRequest(
        prompt=prompt, negative="blurry", seed=1, adapters=(AdapterUse(name="mug", weight=0.8),), **RESOLVED
    )
    text = infotext.format(request)
    assert infotext.EXACT not in infotext.parse(text).fields
    assert text.startswith(prompt + " <lora:mug:0.8>\nNegative prompt: blurry\nSteps: 20, Sampler: DPM++ 2M, ")


def test_a_tag_carries_the_file_name_and_a_folder_only_where_two_are_alike() -> None:
    adapters = tuple(AdapterUse(name=name) for name in ("a/mug", "a/cat", "b/cat"))
    text = infotext.format(RenderRequest(adapters=adapters))
    assert text.startswith("<lora:mug:1> <lora:a/cat:1> <lora:b/cat:1>\n")


def test_the_text_of_a1111_is_read() -> None:
    request, notices = infotext.to_request(infotext.parse(A1111))
    assert request == RenderRequest(
        prompt="a cat, (sitting:1.2),\non a table", negative="blurry, bad\n  second line", base="dream", steps=25,
        sampler="DPM++ 2M", schedule="Karras", guidance=6.5, seed=965400086, width=512, height=768, strength=0.4,
        clip_skip=2, adapters=(AdapterUse(name="mug", weight=0.8, hash="0123456789ab"),),
    )  # fmt: skip
    assert notices == ()
    assert infotext.parse(A1111).fields["ADetailer prompt"] == "a, b: c"


@pytest.mark.parametrize(
    ("tag", "use"),
    [
        ("<lora:m>", AdapterUse(name="m")),
        ("<lora:m:0.5>", AdapterUse(name="m", weight=0.5)),
        ("<lora:m:0.5:0.7>", AdapterUse(name="m", weight=0.7, text_weight=0.5)),
        ("<lora:m:0.5:0.7:8>", AdapterUse(name="m", weight=0.7, text_weight=0.5)),
        ("<lora:m:te=0.5:unet=-1>", AdapterUse(name="m", weight=-1, text_weight=0.5)),
        ("<lora:m:unet=2>", AdapterUse(name="m", weight=2, text_weight=1)),
        ("<lyco:m:0.5>", AdapterUse(name="m", weight=0.5)),
    ],
)
def test_the_forms_of_a_tag(tag: str, use: AdapterUse) -> None:
    request, notices = infotext.to_request(infotext.parse(f"{tag} a cat {tag}, here"))
    assert (request.prompt, request.adapters, notices) == ("a cat, here", (use, use), ())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<lora:m:9> cat", "<lora:m:9>"),
        ("<lora:m:x> cat", "<lora:m:x>"),
        ("<hypernet:h:1> cat", "<hypernet:h:1>"),
        ("cat\nSteps: 5000, Sampler: a, Model: b", "5000"),
        ("cat\nSteps: 5, Sampler: a, Seed: 3", "no base"),
        ('cat\nSteps: 5, Model: a, Studio: "{"', "Studio"),
        ('cat\nSteps: 5, Model: a, Studio: "{\\"seed\\": NaN}"', "Studio"),
        ('cat\nSteps: 5, Model: a, Studio: "{\\"hack\\": 1}"', "hack"),
        ('cat\nSteps: 5, Model: a, Studio: "{\\"prompt\\": \\"\\\\ud800\\"}"', "Studio"),
    ],
)
def test_what_does_not_fit_is_said(text: str, said: str) -> None:
    request, notices = infotext.to_request(infotext.parse(text))
    assert len(notices) == 1 and said in notices[0]
    assert request.steps in {5, None}
    assert request.model_dump_json()


def test_two_pairs_are_prompt_and_three_are_parameters() -> None:
    assert infotext.parse("cat\nSteps: 5, Seed: 3") == ("cat\nSteps: 5, Seed: 3", "", {})
    assert infotext.parse("cat\nSteps: 5, Seed: 3, Model: a").fields == {"Steps": "5", "Seed": "3", "Model": "a"}


def test_adapters_are_matched_to_the_library_by_name_file_name_and_hash() -> None:
    def info(name: str, digest: str) -> AdapterInfo:
        return AdapterInfo(name=name, title=name, family="sd15", hash=digest * 64)

    known = [info("toys/mug", "a"), info("bear", "b"), info("a/cat", "c"), info("b/cat", "d")]
    uses = [("mug", None), ("bear", "e" * 12), ("elsewhere", "d" * 12), ("cat", None), ("none", "f" * 12)]
    request = RenderRequest(adapters=tuple(AdapterUse(name=name, hash=digest) for name, digest in uses))
    matched, notices = infotext.match(request, known)
    assert [use.name for use in matched.adapters] == ["toys/mug", "bear", "b/cat", "cat", "none"]
    assert ["“bear”" in notices[0], "“cat”" in notices[1], "“none”" in notices[2]] == [True] * 3 and len(notices) == 3


def read_elsewhere(text: str) -> object:
    picture = Image.new("RGB", (1, 1))
    picture.format, picture.info = "PNG", {"parameters": text}
    return ParserManager().parse(picture)


@settings(max_examples=100, deadline=None)
@given(TEXT, TEXT, st.integers(0, 2**32 - 1), st.lists(st.sampled_from(("mug", "toys/bear", "x:y")), max_size=3))
def test_another_reader_reads_ours(prompt: str, negative: str, seed: int, names: list[str]) -> None:
    uses = tuple(AdapterUse(name=name, hash="0123456789ab", words=(prompt,)) for name in names)
    options = {"note": prompt + ", Steps: 9, Seed: 8"}
    request = RenderRequest(prompt=prompt, negative=negative, seed=seed, adapters=uses, options=options, **RESOLVED)
    text = infotext.format(request, {"Model hash": "45dee52b"})
    info = read_elsewhere(text)
    sampler = info.samplers[0]  # type: ignore[attr-defined]
    assert sampler.name == "DPM++ 2M"
    assert sampler.parameters == {"scheduler": "Karras", "steps": "20", "cfg_scale": "7.5", "seed": str(seed)}
    assert (sampler.model.name, sampler.model.hash) == ("toybox", "45dee52b")
    if infotext.EXACT not in infotext.parse(text).fields:  # which an ordinary request does not need, see above
        assert "".join(p.value for p in sampler.prompts) == prompt.strip()
        assert "".join(p.value for p in sampler.negative_prompts) == negative.strip()


@pytest.mark.parametrize(
    "piece",
    ["aaaa ", 'aa:"', 'aa:"x,', 'aa:"\\",', "<lora:", "<lora:a:", "<lora:a", ":", ",", "\n", "Negative prompt:"],
)
def test_a_hostile_text_is_read_in_linear_time(piece: str) -> None:
    text = piece * (1_000_000 // len(piece))
    start = time.process_time()
    infotext.to_request(infotext.parse(text))
    assert time.process_time() - start < 4
