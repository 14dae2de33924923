"""What sets the studio up: pins, make's stamps, the choice of a torch build, Docker, licences."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import packages_distributions, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools import third_party

ROOT = Path(__file__).parent.parent
BASH = shutil.which("bash")
needs_bash = pytest.mark.skipif(BASH is None, reason="studio.sh is for systems with bash")


def requirements(name: str) -> list[Requirement]:
    """The requirement lines of a file."""
    lines = (ROOT / name).read_text("utf-8").splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith(("#", "-r"))]


# --- pins


def test_every_requirement_is_pinned_once() -> None:
    every = requirements("requirements.txt") + requirements("requirements-dev.txt")
    names = [canonicalize_name(r.name) for r in every]
    assert all(re.fullmatch(r"==[^*]+", str(r.specifier)) for r in every)
    assert len(names) == len(set(names))


def test_what_is_installed_is_what_is_pinned() -> None:
    every = requirements("requirements.txt") + requirements("requirements-dev.txt")
    here = [r for r in every if r.marker is None or r.marker.evaluate()]
    # "+cpu" and the like name a build of the same version.
    installed = {r.name: version(r.name).split("+")[0] for r in here}
    assert installed == {r.name: str(r.specifier).removeprefix("==") for r in here}


def test_what_the_program_imports_is_a_direct_pin() -> None:
    direct = (ROOT / "requirements.txt").read_text("utf-8").split("# What these need")[0].splitlines()
    pinned = {canonicalize_name(Requirement(line).name) for line in direct if line and not line.startswith("#")}
    owner = {module: canonicalize_name(found[0]) for module, found in packages_distributions().items()}
    used = {
        name.split(".")[0]
        for path in [*ROOT.glob("app.py"), *ROOT.glob("studio/**/*.py"), *ROOT.glob("pipelines/**/*.py")]
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        for name in imported(node)
    }
    foreign = used - set(sys.stdlib_module_names) - {"studio", "pipelines", "app"}
    assert {owner.get(module, module) for module in foreign} <= pinned


def imported(node: ast.AST) -> list[str]:
    """Absolute names that one import statement brings."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []


def test_the_list_of_licences_is_current() -> None:
    listed = re.findall(r"^\| (\S+) \| (\d\S*) \| (.+) \|$", (ROOT / "THIRD_PARTY.md").read_text("utf-8"), re.MULTILINE)
    pins = [*third_party.pins(ROOT / "requirements.txt"), *third_party.pins(ROOT / "requirements-dev.txt")]
    assert {(name, number) for name, number, _ in listed} == set(pins)
    assert [row for row in listed if re.search(r"AGPL|Affero|non-?commercial", row[2], re.IGNORECASE)] == []


# --- make


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with the files that make looks at and an environment that seems to be there."""
    for name in ("Makefile", "requirements.txt", "requirements-dev.txt"):
        shutil.copy(ROOT / name, tmp_path)
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    return tmp_path


def planned(folder: Path, target: str) -> str:
    """The commands that make would run."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    done = subprocess.run(
        ["make", "--dry-run", target], cwd=folder, capture_output=True, text=True, check=True, env=environment
    )
    return done.stdout


def stamp(folder: Path, name: str, age: int) -> None:
    """Mark something as made `age` seconds ago."""
    path = folder / name
    path.touch()
    now = path.stat().st_mtime
    os.utime(path, (now - age, now - age))


@pytest.mark.skipif(shutil.which("make") is None, reason="studio.sh and studio.bat are for systems without make")
def test_make_installs_once_and_again_when_the_pins_change(checkout: Path) -> None:
    assert "pip install" in planned(checkout, "studio") and "app.py" in planned(checkout, "studio")
    assert "requirements-dev.txt" in planned(checkout, "test") and "pytest" in planned(checkout, "test")
    for name, age in [
        ("requirements.txt", 40), ("requirements-dev.txt", 40),
        (".venv/.installed-user", 30), (".venv/.installed-dev", 20),
    ]:  # fmt: skip
        stamp(checkout, name, age)
    assert "pip install" not in planned(checkout, "studio") + planned(checkout, "test")
    stamp(checkout, "requirements-dev.txt", 10)
    assert "pip install" not in planned(checkout, "studio")
    assert "pip install" in planned(checkout, "test")
    stamp(checkout, "requirements.txt", 10)
    assert "pip install" in planned(checkout, "studio")


# --- the choice of a torch build


def detect(folder: Path, system: str = "Linux x86_64", **programs: str) -> subprocess.CompletedProcess[str]:
    """Run `studio.sh --detect` where only the given programs (name -> what it prints) and the basic tools exist."""
    kernel, machine = system.split()
    fakes = {
        "uname": f'case "$1" in -s) echo {kernel};; -m) echo {machine};; esac',
        **{name.replace("_", "-"): f"cat <<'END'\n{text}\nEND" for name, text in programs.items()},
    }
    for name in ("cat", "dirname", "grep", "sort", "tail"):
        (folder / name).symlink_to(shutil.which(name) or name)
    for name, body in fakes.items():
        (folder / name).write_text(f"#!{BASH}\n{body}\n")
        (folder / name).chmod(0o755)
    return subprocess.run(
        [str(BASH), str(ROOT / "studio.sh"), "--detect"],
        env={"PATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )


@needs_bash
@pytest.mark.parametrize(
    ("capability", "driver", "build"),
    [
        ("12.0", "580.65.06", "cu130"),
        ("12.0", "570.211.01", "cpu (this card needs driver 580 or newer)"),
        ("9.0", "580.95.05", "cu130"),
        ("8.9", "550.54.14", "cu126"),
        ("7.5", "580.65.06", "cu130"),
        ("7.5", "525.60.13", "cu126"),
        ("7.0", "590.10", "cu126"),
        ("6.1", "470.256.02", "cpu (CUDA needs driver 525 or newer)"),
        ("5.0", "535.288.01", "cu126"),
        ("3.5", "470.256.02", "cpu (torch needs compute capability 5.0 or newer)"),
    ],
)
def test_the_build_fits_card_and_driver(tmp_path: Path, capability: str, driver: str, build: str) -> None:
    done = detect(tmp_path, nvidia_smi=f"{capability}, {driver}, NVIDIA GeForce X, 8 GB")
    assert done.stdout == f"NVIDIA GeForce X, 8 GB, compute capability {capability}, driver {driver} -> {build}\n"


@needs_bash
@pytest.mark.parametrize(
    ("system", "programs", "line"),
    [
        ("Linux x86_64", {"nvidia_smi": "6.1, 580.1, GTX\n12.0, 580.1, RTX"}, "NVIDIA RTX, compute capability 12.0,"),
        ("Linux x86_64", {"nvidia_smi": "NVIDIA-SMI has failed"}, "NVIDIA card whose driver does not answer -> cpu"),
        ("Linux x86_64", {"rocminfo": "  Name:  gfx1100\n  Name: x--gfx1100"}, "AMD gfx1100 with ROCm -> rocm7.2"),
        ("Linux x86_64", {"lspci": "03:00.0 VGA compatible: AMD/ATI Navi"}, "AMD card without ROCm -> cpu"),
        ("Linux aarch64", {}, "no graphics card -> cpu"),
        ("Darwin arm64", {}, "Apple silicon -> mps"),
    ],
)
def test_one_line_says_what_was_found(tmp_path: Path, system: str, programs: dict[str, str], line: str) -> None:
    done = detect(tmp_path, system, **programs)
    assert done.stdout.startswith(line) and done.stdout.count("\n") == 1, done.stderr


@needs_bash
def test_an_intel_mac_is_told_why_it_cannot(tmp_path: Path) -> None:
    done = detect(tmp_path, "Darwin x86_64")
    assert done.returncode == 1 and "Intel" in done.stderr and done.stdout == ""


def test_windows_decides_by_the_same_numbers() -> None:
    shell, batch = (ROOT / "studio.sh").read_text("utf-8"), (ROOT / "studio.bat").read_text("utf-8")
    assert set(re.findall(r"capability >= (\d+)", shell)) == set(re.findall(r"CAPABILITY% (?:geq|lss) (\d\d+)", batch))
    assert {"cu126", "cu130"} <= set(re.findall(r"echo (\w+)", shell)) & set(re.findall(r'"BUILD=(\w+)"', batch))
    assert "driver >= 580" in shell and "%DRIVER% geq 580" in batch


def test_every_label_of_the_batch_file_is_there() -> None:
    batch = (ROOT / "studio.bat").read_bytes()
    text = batch.decode("ascii")
    assert batch.count(b"\r\n") == batch.count(b"\n"), "cmd misses labels in files with Unix line ends"
    labels = set(re.findall(r"(?m)^:(\w+)", text))
    assert set(re.findall(r"(?:call|goto) :(\w+)", text)) == labels
