"""The one door: what goes in comes out, the same twice, and what does not fit is said in a sentence."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from studio.engine import Studio
from studio.errors import AdapterMismatch, BadFile, BadRequest, RenderFailed, StudioError, UnknownName, UnsafeFile
from studio.specs import AdapterUse, Finished, Notice, Preview, Progress, RenderRequest
from tests.pipelines import tiny


def request(**fields: Any) -> RenderRequest:
    return RenderRequest(**{"prompt": "a cat", "seed": 7, **fields})


def write_lora(folder: Path, name: str, width: int = 128, poison: bool = False, seed: int = 1) -> None:
    """A random kohya LoRA for the tiny base (or, with another width, for no base here)."""
    pipe = tiny.sd(width=width)
    tensors: dict[str, torch.Tensor] = {}
    for path, delta in tiny.adapter(pipe, seed).deltas.items():
        key = "lora_unet_" + path.removeprefix("unet.").replace(".", "_")
        tensors[f"{key}.lora_down.weight"], tensors[f"{key}.lora_up.weight"] = delta.down.clone(), delta.up.clone()
        tensors[f"{key}.alpha"] = torch.tensor(1.5)
    if poison:
        next(iter(tensors.values()))[0] = float("nan")
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / f"{name}.safetensors")


def pictures(studio: Studio, result: Any) -> list[bytes]:
    return [studio.gallery.path(picture.name).read_bytes() for picture in result.pictures]


def test_a_render_tells_its_progress_and_ends_with_the_result(tiny_studio: Studio) -> None:
    events = list(tiny_studio.render(request(count=2)))
    steps = [event.step for event in events if isinstance(event, Progress) and event.phase == "sampling"]
    assert steps == list(range(1, 7))
    last = events[-1]
    assert isinstance(last, Finished)
    assert [picture.seed for picture in last.result.pictures] == [7, 8]
    assert last.result.rows == 2 * 3 * 2


def test_the_same_request_gives_the_same_bytes(tiny_studio: Studio, tiny_assets: Path, tmp_path: Path) -> None:
    first = pictures(tiny_studio, tiny_studio.run(request()))
    again = pictures(tiny_studio, tiny_studio.run(request()))
    assert first == again
    with Studio(tiny_studio.settings.model_copy(update={"data_dir": tmp_path / "other"})) as other:
        assert pictures(other, other.run(request())) == first
    assert pictures(tiny_studio, tiny_studio.run(request(seed=8))) != first


def test_a_picture_renders_itself_again(tiny_studio: Studio) -> None:
    write_lora(tiny_studio.settings.data_dir / "adapters", "pet")
    asked = request(count=2, adapters=(AdapterUse(name="pet", weight=0.8),), guidance_rescale=0.3, clip_skip=2)
    for data in pictures(tiny_studio, tiny_studio.run(asked)):
        recalled = tiny_studio.gallery.read(data).request
        assert recalled is not None
        assert pictures(tiny_studio, tiny_studio.run(recalled)) == [data]


def test_an_adapter_changes_the_picture_and_weight_zero_does_not(tiny_studio: Studio) -> None:
    write_lora(tiny_studio.settings.data_dir / "adapters", "pet")
    plain = tiny_studio.run(request())
    pet = tiny_studio.run(request(adapters=(AdapterUse(name="pet"),)))
    nothing = tiny_studio.run(request(adapters=(AdapterUse(name="pet", weight=0.0),)))

    def pixels(result: Any) -> bytes:
        return Image.open(io.BytesIO(pictures(tiny_studio, result)[0])).tobytes()

    assert pixels(plain) == pixels(nothing) != pixels(pet)


def test_the_base_is_as_before_when_a_render_is_closed_half_way(tiny_studio: Studio) -> None:
    write_lora(tiny_studio.settings.data_dir / "adapters", "pet")
    before = tiny_studio.run(request())
    pipe = tiny_studio.bases.load("toybox")
    weights = {name: value.clone() for name, value in pipe.unet.state_dict().items()}
    events = tiny_studio.render(request(adapters=(AdapterUse(name="pet"),)))
    while not (isinstance(event := next(events), Progress) and event.phase == "sampling"):
        pass
    assert torch.is_grad_enabled()
    events.close()
    assert all(torch.equal(value, weights[name]) for name, value in pipe.unet.state_dict().items())
    assert pictures(tiny_studio, tiny_studio.run(request())) == pictures(tiny_studio, before)


def test_previews_come_while_sampling(tiny_studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("studio.rendering.PREVIEW_SECONDS", 0.0)
    monkeypatch.setattr("studio.rendering.PREVIEW_SHARE", 0.0)
    shown = [event for event in tiny_studio.render(request(steps=4)) if isinstance(event, Preview)]
    assert [preview.step for preview in shown] == [1, 2, 3]
    assert Image.open(io.BytesIO(shown[0].images[0])).format == "JPEG"


def test_img2img_and_inpainting_start_from_the_given_picture(tiny_studio: Studio) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), "red").save(buffer, "PNG")
    mask = io.BytesIO()
    Image.linear_gradient("L").resize((32, 32)).save(mask, "PNG")
    digest, hole = tiny_studio.keep(buffer.getvalue()), tiny_studio.keep(mask.getvalue())
    results = [
        pictures(tiny_studio, tiny_studio.run(request(image=digest, **fields)))
        for fields in ({"strength": 0.5}, {"strength": 1.0}, {"strength": 1.0, "mask": hole})
    ]
    assert len({result[0] for result in results}) == 3


def test_a_prompt_past_the_limit_is_cut_with_a_word_about_it(tiny_studio: Studio) -> None:
    events = list(tiny_studio.render(request(prompt="x" * 10_000, steps=1)))
    assert any(isinstance(event, Notice) and "too long" in event.text for event in events)
    assert isinstance(events[-1], Finished)


def test_an_empty_prompt_is_allowed(tiny_studio: Studio) -> None:
    assert tiny_studio.run(request(prompt="", steps=1)).pictures


@pytest.mark.parametrize(
    ("fields", "error", "said"),
    [
        ({"base": "toybax"}, UnknownName, "toybox"),
        ({"base": "someone/some-base"}, BadRequest, "bases get someone/some-base"),
        ({"base": "old.ckpt"}, UnsafeFile, "pickle"),
        ({"method": "merg"}, UnknownName, "merge"),
        ({"options": {"strong": 1}}, UnknownName, "strong"),
        ({"sampler": "Eular"}, UnknownName, "Euler"),
        ({"sampler": "DDIM", "schedule": "Karras"}, BadRequest, "Automatic"),
        ({"width": 33}, BadRequest, "32 and 40"),
        ({"vae": "sharp"}, UnknownName, "sharp"),
        ({"adapters": (AdapterUse(name="nobody"),)}, UnknownName, "nobody"),
        ({"image": "0" * 64}, BadFile, "0000"),
        ({"mask": "0" * 64}, BadRequest, "needs a picture"),
        ({"seed": 2**32 - 1, "count": 2}, BadRequest, str(2**32 - 1)),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_loads(
    tiny_studio: Studio, fields: dict[str, Any], error: type[StudioError], said: str
) -> None:
    with pytest.raises(error) as caught:
        tiny_studio.check(request(**fields))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert tiny_studio.bases._loaded is None


def test_another_familys_adapter_is_refused_by_name(tiny_studio: Studio) -> None:
    write_lora(tiny_studio.settings.data_dir / "adapters", "big", width=768)
    with pytest.raises(AdapterMismatch, match="sd15"):
        tiny_studio.check(request(adapters=(AdapterUse(name="big"),)))


def test_a_truncated_and_a_poisoned_adapter_are_refused(tiny_studio: Studio) -> None:
    folder = tiny_studio.settings.data_dir / "adapters"
    write_lora(folder, "cut")
    whole = (folder / "cut.safetensors").read_bytes()
    (folder / "cut.safetensors").write_bytes(whole[:-100])
    write_lora(folder, "poisoned", poison=True)
    with pytest.raises(StudioError, match="truncated"):
        tiny_studio.check(request(adapters=(AdapterUse(name="cut"),)))
    with pytest.raises(BadFile, match="not numbers"):
        tiny_studio.run(request(adapters=(AdapterUse(name="poisoned"),)))


def test_a_word_that_is_not_in_the_prompt_is_named(tiny_studio: Studio) -> None:
    write_lora(tiny_studio.settings.data_dir / "adapters", "pet")
    with pytest.raises(BadRequest, match="dog"):
        tiny_studio.submit(request(adapters=(AdapterUse(name="pet", words=("dog",)),)))


def test_not_a_number_pictures_are_an_error(tiny_studio: Studio) -> None:
    pipe = tiny_studio.bases.load("toybox")
    pipe.vae.decoder.conv_out.bias.data.fill_(float("nan"))
    with pytest.raises(RenderFailed, match="not numbers"):
        tiny_studio.run(request())
    pipe.unet.conv_out.bias.data.fill_(float("nan"))
    with pytest.raises(RenderFailed, match="not numbers"):
        tiny_studio.run(request())


def test_the_catalogue_lists_what_can_be_chosen(tiny_studio: Studio) -> None:
    write_lora(tiny_studio.settings.data_dir / "adapters", "pet")
    catalogue = tiny_studio.catalogue()
    assert [base.title for base in catalogue.bases] == ["Tiny"]
    assert [adapter.name for adapter in catalogue.adapters] == ["pet"]
    assert "merge" in [method.name for method in catalogue.methods]
