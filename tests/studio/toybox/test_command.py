"""The command line: help without torch, sentences instead of tracebacks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from studio.toybox.__main__ import app, main
from studio.toybox.loop import pick_dtype
from studio.toybox.threads import Threads


def test_help_loads_neither_torch_nor_diffusers() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from studio.toybox.__main__ import app;"
        "r = CliRunner().invoke(app, ['base', '--help']);"
        "sys.exit(r.exit_code + len({'torch', 'diffusers', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_world_can_be_looked_at(tmp_path: Path) -> None:
    page = tmp_path / "world.png"
    assert CliRunner().invoke(app, ["world", str(page)]).exit_code == 0
    assert Image.open(page).size == (8 * 130, 8 * 130)


def test_exporting_nothing_ends_with_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "x"
    monkeypatch.setattr(sys, "argv", ["toybox", "export", "--folder", str(tmp_path), "--target", str(target)])
    with pytest.raises(SystemExit, match="run `python -m studio.toybox base` first"):
        main()
    assert not target.exists()


def test_precision_can_be_chosen() -> None:
    assert [str(pick_dtype(name)) for name in ("bf16", "fp32")] == ["torch.bfloat16", "torch.float32"]
    assert str(pick_dtype("auto")) in ("torch.bfloat16", "torch.float32")


def test_a_fixed_thread_count_never_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.set_num_threads", lambda count: None)
    cores = Threads(3)
    for _ in range(40):
        cores.start()
        cores.stop()
        assert cores.now == 3


def test_training_gives_way_to_other_programs_and_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = {"wall": 0.0, "work": 0.0, "load": 0.0}
    monkeypatch.setattr("torch.set_num_threads", lambda count: None)
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    monkeypatch.setattr("os.getloadavg", lambda: (clock["load"], 0.0, 0.0))
    monkeypatch.setattr("time.monotonic", lambda: clock["wall"])
    monkeypatch.setattr("time.process_time", lambda: clock["work"])
    cores, seen = Threads(0), []

    def steps(count: int, cores_got: float) -> None:
        for _ in range(count):
            cores.start()
            seen.append(cores.now)
            clock["wall"] += 1.0
            clock["work"] += min(cores_got, cores.now)
            cores.stop()

    steps(4, cores_got=4)
    assert seen == [4] * 4, "an idle machine is used whole"
    clock["load"] = 6.0
    steps(20, cores_got=1.5)
    assert seen[4:] == [4, 4] + [1] * 18, "two starved steps are enough"
    clock["load"] = 1.0
    steps(20, cores_got=4)
    assert seen[-1] == 4
