"""The command line: the same requests as Python's, one sentence for what does not fit, and a cancel that cleans up."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from PIL import Image

import studio
from studio.__main__ import main
from studio.cli import flags, render
from studio.engine import Studio
from studio.errors import BadRequest
from studio.specs import (
    AdapterUse,
    Finished,
    Notice,
    Preview,
    Progress,
    RenderEvent,
    RenderRequest,
    RenderResult,
)
from tests.studio.strategies import REQUEST
from tests.studio.test_library import adapter

HEAVY = ("torch", "diffusers", "transformers", "gradio", "huggingface_hub")


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[RenderRequest]:
    """Replace sampling by a plain picture; the list holds the requests that arrived."""
    requests: list[RenderRequest] = []

    def drawing(self: Studio, request: RenderRequest) -> Iterator[RenderEvent]:
        requests.append(request)
        yield Progress(phase="loading")
        yield Notice(text="Toybox does not know: [red]zebra[/red].")
        yield Progress(phase="sampling", step=1, total=2, left=1.0)
        yield Preview(step=1, images=(b"",))
        pictures = tuple(
            self.gallery.save(
                Image.new("RGB", (16, 16), (index, 0, 0)),
                request.model_copy(update={"seed": (request.seed or 0) + index, "count": 1}),
                infotext_extra={}, report={},
            )
            for index in range(request.count)
        )  # fmt: skip
        yield Finished(result=RenderResult(request=request, pictures=pictures, seconds=1, sampling_seconds=1, rows=2))

    monkeypatch.setattr(Studio, "render", drawing)
    monkeypatch.setenv("STUDIO_DATA_DIR", str(tmp_path / "data"))
    return requests


def test_every_flag_reaches_the_request(drawn: list[RenderRequest], tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG")
    (tmp_path / "a.png").write_bytes(buffer.getvalue())
    line = (
        "render --prompt a_cat --negative blurry --base dream --method merge --seed 7 --count 2 --steps 9 "
        "--guidance 3.5 --guidance-rescale 0.5 --sampler DDIM --schedule Karras --clip-skip 2 --vae fine "
        "--strength 0.5 --size 128x96 --adapter toys/mug:0.8:0.5:word=cat:word=cup:trigger=sks --adapter bear "
        f"--image {tmp_path / 'a.png'}"
    )
    assert main(line.split()) == 0
    (request,) = drawn
    assert request == RenderRequest(
        prompt="a_cat", negative="blurry", base="dream", seed=7, count=2, steps=9, guidance=3.5, guidance_rescale=0.5,
        sampler="DDIM", schedule="Karras", clip_skip=2, vae="fine", strength=0.5, width=128, height=96,
        image=request.image, adapters=(
            AdapterUse(name="toys/mug", weight=0.8, text_weight=0.5, words=("cat", "cup"), trigger="sks"),
            AdapterUse(name="bear"),
        ),
    )  # fmt: skip
    assert request.image and (tmp_path / "data" / "inputs" / f"{request.image}.png").is_file()


def test_every_plain_field_of_a_request_has_its_flag() -> None:
    special = {"version", "adapters", "options", "width", "height", "image", "mask"}
    assert {*render.FIELDS, *special} == set(RenderRequest.model_fields)


def test_files_are_printed_and_copied(
    drawn: list[RenderRequest], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    for _ in range(2):
        assert main(["render", "--seed", "5", "--count", "2", "--out", str(out)]) == 0
    output = capsys.readouterr()
    names = ["00000-5.png", "00001-6.png", "00002-5.png", "00003-6.png"]
    assert output.out.split() == [str(out / name) for name in names]
    assert "[red]zebra[/red]" in output.err
    originals = sorted((tmp_path / "data" / "outputs").rglob("*.png"))
    assert [path.read_bytes() for path in originals] == [(out / name).read_bytes() for name in names]


def test_json_out_is_the_result_and_json_in_is_the_request(
    drawn: list[RenderRequest], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    request = RenderRequest(prompt="a cat", seed=3, steps=5, adapters=(AdapterUse(name="mug", words=("cat",)),))
    (tmp_path / "request.json").write_text(request.model_dump_json())
    assert main(["render", "--request", str(tmp_path / "request.json"), "--steps", "8", "--json"]) == 0
    result = RenderResult.model_validate_json(capsys.readouterr().out)
    assert result.request == drawn[0] == request.model_copy(update={"steps": 8})
    stdin = type("Stdin", (), {"buffer": io.BytesIO(request.model_dump_json().encode())})
    monkeypatch.setattr(sys, "stdin", stdin)
    assert main(["render", "--request", "-"]) == 0
    assert drawn[1] == request


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(request_=REQUEST)
def test_recall_prints_what_render_takes(
    drawn: list[RenderRequest], tmp_path: Path, capsys: pytest.CaptureFixture[str], request_: RenderRequest
) -> None:
    (tmp_path / "in.json").write_text(request_.model_copy(update={"count": 1, "seed": 4}).model_dump_json(), "utf-8")
    assert main(["render", "--request", str(tmp_path / "in.json")]) == 0
    assert main(["recall", capsys.readouterr().out.strip()]) == 0
    (tmp_path / "out.json").write_text(capsys.readouterr().out, "utf-8")
    assert main(["render", "--request", str(tmp_path / "out.json")]) == 0
    assert drawn[-1] == drawn[-2]
    capsys.readouterr()


def test_options_get_their_types_from_the_method(drawn: list[RenderRequest], monkeypatch: pytest.MonkeyPatch) -> None:
    from pydantic import BaseModel

    from pipelines import composer

    class Options(BaseModel, frozen=True, extra="forbid"):
        every: int = 1
        late: bool = False
        name: str = ""
        parts: tuple[float, ...] = ()

    method = type("Method", (), {"Options": Options, "name": "merge", "title": "Merge"})
    monkeypatch.setattr(composer, "find", lambda name: method)
    options = ["every=3", "late=true", "name=5", "parts=[0.5, 1]"]
    assert main(["render", *(word for option in options for word in ("--option", option))]) == 0
    assert drawn[0].options == {"every": 3, "late": True, "name": "5", "parts": [0.5, 1.0]}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("render --steps 5000", "“steps” = 5000"),
        ("render --steps many", "'--steps'"),
        ("render --size 12", "--size 12 is no size"),
        ("render --size 128x-9", "128x-9"),
        ("render --size 8x8", "“width” = '8'"),
        ("render --adapter mug:x", "“weight” = 'x'"),
        ("render --adapter mug:1:1:1", "“1” in --adapter"),
        ("render --adapter mug:words=cat", "“words=cat”"),
        ("render --adapter :1", "“name” = ''"),
        ("render --option every", "--option every gives no value"),
        ("render --option every=[1", "not JSON"),
        ("render --request none.json", "“none.json” cannot be read"),
        ("render --request {broken}", "not JSON"),
        ("render --request {listed}", "not a JSON object"),
        ("render --image none.png", "“none.png” cannot be read"),
        ("render --image {broken}", "not a picture"),
        ("render --colour red", "--colour"),
        ("recall none.png", "“none.png” cannot be read"),
        ("recall {broken}", "not a picture"),
        ("library show mug", "Unknown adapter “mug”"),
        ("bases get toybox", "owner/name"),
        ("--config none.toml library list", "none.toml"),
        ("--device tpu library list", "tpu"),
        ("nonsense", "nonsense"),
    ],
)
def test_what_does_not_fit_is_one_sentence_and_exit_code_2(
    drawn: list[RenderRequest], line: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken").write_text("{")
    (tmp_path / "listed").write_text("[]")
    words = [word.format(broken=tmp_path / "broken", listed=tmp_path / "listed") for word in line.split()]
    assert main(words) == 2
    output = capsys.readouterr()
    assert output.out == "" and drawn == []
    assert said in output.err and output.err.count("\n") == 1 and "Traceback" not in output.err


def test_an_adapter_is_read_as_it_is_written() -> None:
    assert render.adapter("a/b:0.5") == AdapterUse(name="a/b", weight=0.5)
    assert render.adapter("a:word=c") == AdapterUse(name="a", words=("c",))
    assert render.adapter("a:trigger=") == AdapterUse(name="a", trigger="")
    with pytest.raises(BadRequest, match="“-9” in|“weight” = '-9'"):
        render.adapter("a:-9")


def test_the_library_is_listed_with_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STUDIO_DATA_DIR", str(tmp_path / "data"))
    adapter(tmp_path / "mine" / "mug.safetensors", metadata={"modelspec.trigger_phrase": "[bold]sks"})
    (tmp_path / "mine" / "cut.safetensors").write_bytes(b"")
    arguments = ["--adapter-dir", str(tmp_path / "mine"), "library"]
    assert main([*arguments, "list"]) == 0
    assert "[bold]sks" in capsys.readouterr().out
    assert main([*arguments, "list", "--json"]) == 0
    listed = {info["name"]: info for info in json.loads(capsys.readouterr().out)}
    assert listed["mug"]["family"] == "sd15" and "0 bytes" in listed["cut"]["problem"]
    assert main([*arguments, "show", "mug"]) == 0
    assert len(json.loads(capsys.readouterr().out)["hash"]) == 64


def run(code: str, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, **options)


@pytest.mark.parametrize("line", ["--help", "render --help", "library list", "bases --help", "serve --help"])
def test_nothing_heavy_is_loaded_for_a_look(line: str, tmp_path: Path) -> None:
    code = (
        f"import sys; from studio.__main__ import main; code = main({line.split()!r}); "
        f"sys.exit(code or ' '.join(name for name in {HEAVY!r} if name in sys.modules))"
    )
    done = run(code, env={**os.environ, "STUDIO_DATA_DIR": str(tmp_path)})
    assert (done.returncode, done.stderr) == (0, "") or done.stderr.strip() == ""
    assert done.stdout


def test_every_public_name_is_there() -> None:
    assert studio.__doc__ and "studio.run(request)" in studio.__doc__
    assert all(getattr(studio, name).__name__ == name for name in studio.__all__)
    done = run(f"import studio, sys; sys.exit(' '.join(name for name in {HEAVY!r} if name in sys.modules))")
    assert done.stderr.strip() == ""


def test_ctrl_c_closes_the_render(tmp_path: Path) -> None:
    code = """
import signal, sys, threading
from pathlib import Path
from studio.__main__ import main
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs inherit that it is ignored
from studio.engine import Studio
from studio.specs import Progress

def endless(self, request):
    try:
        yield Progress(phase="loading")
        sys.stdout.write("started\\n"); sys.stdout.flush()
        threading.Event().wait()
    finally:
        Path(sys.argv[1]).write_text("closed")

Studio.render = endless
sys.exit(main(["render"]))
"""
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "end")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "STUDIO_DATA_DIR": str(tmp_path)},
    )  # fmt: skip
    assert child.stdout is not None
    assert child.stdout.readline() == "started\n"
    child.send_signal(signal.SIGINT)
    _, errors = child.communicate(timeout=10)
    assert child.returncode == 130 and "Traceback" not in errors
    assert (tmp_path / "end").read_text() == "closed"


def test_a_value_that_does_not_fit_is_named_with_its_place() -> None:
    with pytest.raises(BadRequest, match=r"“adapters\.0\.weight” = 9 does not fit"):
        flags.validated(RenderRequest, {"adapters": [{"name": "mug", "weight": 9}]})
