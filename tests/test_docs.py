"""Every command and every example in the documentation is run, against a tiny base in Toybox's place."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from studio.settings import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(language: str) -> list[str]:
    """The fenced blocks of one language in all pages."""
    return [
        block for page in PAGES for block in re.findall(rf"```{language}\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    ]


def commands(start: str) -> list[str]:
    """Every documented shell command that begins so."""
    lines = [line.strip() for block in blocks("bash") for line in block.splitlines()]
    return sorted({line for line in lines if line.startswith(start)})


@pytest.fixture
def tiny(tiny_assets: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The studio of these tests, chosen as a user would: by environment."""
    for name, value in {"ASSETS_DIR": tiny_assets, "DATA_DIR": data_dir, "DEVICE": "cpu"}.items():
        monkeypatch.setenv(f"STUDIO_{name}", str(value))
    return data_dir


def test_every_command_is_of_a_kind_that_is_tested() -> None:
    kinds = ("make ", "python -m studio", "python -m bench.", "python app.py", "docker ", "./studio.sh", "source ")
    lines = [line for block in blocks("bash") for line in block.splitlines() if line.strip()]
    assert lines and [line for line in lines if not line.startswith(kinds)] == []


@pytest.mark.parametrize("command", commands("make "))
def test_make_targets_exist(command: str) -> None:
    subprocess.run([*shlex.split(command), "--dry-run"], cwd=ROOT, check=True, capture_output=True)


@pytest.mark.parametrize("command", [c for c in commands("python -m studio ") if " get " not in c])
def test_commands_of_the_studio_run(command: str, tiny: Path) -> None:
    from studio.__main__ import app

    arguments = [word for word in shlex.split(command)[3:] if word]
    given = CliRunner().invoke(app, arguments)
    assert given.exit_code == 0, given.output
    assert given.output.strip() or "library list" in command


PROGRAMS = [*commands("python app.py"), *commands("python -m bench."), *commands("python -m studio.")]


@pytest.mark.parametrize("command", PROGRAMS)
def test_programs_take_the_flags_they_are_shown_with(command: str) -> None:
    words = shlex.split(command)
    program = words[1:2] if words[1] == "app.py" else words[1:3]
    run = subprocess.run([sys.executable, *program, "--help"], cwd=ROOT, check=True, capture_output=True, text=True)
    assert [flag for flag in words if flag.startswith("--") and flag not in run.stdout] == []


@pytest.mark.parametrize("example", blocks("python"))
def test_python_examples_run(example: str, tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(example, "README", "exec"), {"__name__": "example"})
    assert Path(capsys.readouterr().out.splitlines()[0]).is_file()


def test_the_example_on_top_of_the_package_runs(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import studio
    from tests.studio.test_engine import write_lora

    write_lora(tiny / "adapters", "mug")
    lines = (studio.__doc__ or "").splitlines()
    example = "\n".join(line[4:] for line in lines if line.startswith("    "))
    exec(compile(example, "studio", "exec"), {"__name__": "example"})
    assert Path(capsys.readouterr().out.strip()).is_file()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_pictures_exist(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text("utf-8"))
    missing = [t for t in targets if not t.startswith("http") and not (page.parent / t).exists()]
    assert missing == []
