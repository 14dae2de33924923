"""After any render the model is as before: same tensors, same bits, same modules, processors, hooks and scheduler."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from pipelines import samplers
from pipelines.adapters import Adapter
from pipelines.composer import Composer
from pipelines.conditioning import Conditioning
from pipelines.methods.merge import Merge
from pipelines.start import Step
from tests.pipelines import tiny
from tests.pipelines.shots import Beside, Shot, begun

METHODS = pytest.mark.parametrize("method", [Merge, Beside], ids=["fused", "unfused"])


def identity(pipe: Any) -> dict[str, Any]:
    """Everything that must stay the same object or address."""
    found: dict[str, Any] = {"scheduler": id(pipe.scheduler), "processors": {}}
    for component in ("unet", "vae", *pipe.encoders):
        model = getattr(pipe, component)
        for path, module in model.named_modules():
            hooks = [len(value) for name, value in vars(module).items() if name.endswith("_hooks")]
            found[f"{component}.{path}"] = (id(module), module.training, hooks, sorted(vars(module)))
        for name, tensor in model.state_dict(keep_vars=True).items():
            found[f"{component}.{name}!"] = (id(tensor), tensor.data_ptr(), tensor.requires_grad)
    found["processors"] = {name: id(value) for name, value in pipe.unet.attn_processors.items()}
    return found


def bits(pipe: Any) -> dict[str, Tensor]:
    """A copy of every parameter and buffer."""
    return {
        f"{component}.{name}": tensor.clone()
        for component in ("unet", "vae", *pipe.encoders)
        for name, tensor in getattr(pipe, component).state_dict().items()
    }


@torch.no_grad()
def render(pipe: Any, composer: Composer, shot: Shot) -> Iterator[Step]:
    """As the studio does it: a generator that has the adapters in while it is suspended."""
    with pipe.sampling(samplers.scheduler(shot.sampler, "Automatic", pipe.scheduler.config)), composer.installed():
        cond, start = begun(pipe, shot, composer)
        yield from pipe.stream(composer, cond, start)


def adapters(pipe: Any) -> list[Adapter]:
    return [tiny.adapter(pipe, k, 3, ("",), weight=0.3, text_weight=0.5) for k in range(2)]


class Broken(Merge):
    """Fails in its third prediction."""

    calls = 0

    def predict(self, latents: Tensor, step: Step, cond: Conditioning) -> Tensor:
        self.calls += 1
        if self.calls == 3:
            raise RuntimeError("out of memory")
        return super().predict(latents, step, cond)


class BrokenBeside(Broken, Beside):
    """The same, with the adapters beside the weights."""

    installed = Beside.installed


@pytest.fixture(params=[tiny.sd, tiny.sdxl])
def pipe(request: pytest.FixtureRequest) -> Any:
    return request.param()


@pytest.fixture
def unchanged(pipe: Any) -> Iterator[None]:
    """Checks the pipeline after the test's body."""
    if pipe.family == "sd15":
        pipe.unet.to(torch.bfloat16)  # where subtracting again would not restore the bits
    with torch.no_grad():
        pipe.embed("a cat", None)  # transformers adds recording hooks of its own when hidden states are first asked for
    before, weights = identity(pipe), bits(pipe)
    yield
    assert torch.is_grad_enabled(), "the gradient mode leaked"
    after = identity(pipe)
    assert after == before
    for name, tensor in bits(pipe).items():
        assert torch.equal(tensor.view(torch.uint8), weights[name].view(torch.uint8)), name


@METHODS
@pytest.mark.usefixtures("unchanged")
class TestRestored:
    def test_finished(self, pipe: Any, method: type[Composer]) -> None:
        composer = method(pipe, adapters(pipe), method.Options())
        steps = list(render(pipe, composer, Shot()))
        assert len(steps) == 4 and steps[-1].latents is not None and steps[-1].latents.isfinite().all()

    def test_failed(self, pipe: Any, method: type[Composer]) -> None:
        broken = Broken if method is Merge else BrokenBeside
        composer = broken(pipe, adapters(pipe), broken.Options())
        seen = []
        with pytest.raises(RuntimeError, match="out of memory"):
            for step in render(pipe, composer, Shot()):
                seen.append(step.index)
        assert seen == [0, 1]

    def test_closed_half_way(self, pipe: Any, method: type[Composer]) -> None:
        steps = render(pipe, method(pipe, adapters(pipe), method.Options()), Shot())
        scheduler, before = pipe.scheduler, bits(pipe)
        next(steps)
        assert torch.is_grad_enabled(), "the caller's gradient mode is its own between two steps"
        assert pipe.scheduler is not scheduler
        after = {name: tensor for name, tensor in bits(pipe).items() if name in before}
        assert method is Beside or any(not torch.equal(after[name], before[name]) for name in after)
        next(steps)
        steps.close()  # type: ignore[attr-defined]

    def test_thrown_into(self, pipe: Any, method: type[Composer]) -> None:
        steps = render(pipe, method(pipe, adapters(pipe), method.Options()), Shot())
        next(steps)
        with pytest.raises(KeyboardInterrupt):
            steps.throw(KeyboardInterrupt())  # type: ignore[attr-defined]


@METHODS
def test_a_render_after_a_failed_one_is_not_changed_by_it(method: type[Composer]) -> None:
    pipe = tiny.sd()
    composer = method(pipe, adapters(pipe), method.Options())
    first = [step.latents for step in render(pipe, composer, Shot())][-1]
    broken = Broken if method is Merge else BrokenBeside
    with pytest.raises(RuntimeError):
        list(render(pipe, broken(pipe, adapters(pipe), broken.Options()), Shot("Euler a")))
    again = [step.latents for step in render(pipe, method(pipe, adapters(pipe), method.Options()), Shot())][-1]
    assert first is not None and again is not None and torch.equal(first, again)
