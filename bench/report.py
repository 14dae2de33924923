"""What every benchmark prints and writes: a table, then its bars, each with an interval and a target.

Usage: parse `arguments(__doc__)`, collect `Bar`s and rows, and end with `finish(...)`.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "diffusers", "transformers", "peft")


@dataclass(frozen=True)
class Bar:
    """One number that is held to a target; `at_most` says on which side it has to lie."""

    name: str
    value: float
    low: float
    high: float
    target: float
    at_most: bool = True
    slack: float = 0.03  # largest half width of a decided interval: 3 % of a ratio, 0.06 for shares

    @property
    def reached(self) -> bool:
        """Whether the value meets the target and is known well enough to say so."""
        meets = self.value <= self.target if self.at_most else self.value >= self.target
        return meets and (self.high - self.low) / 2 <= self.slack * max(abs(self.value), 1e-9)

    @property
    def missed(self) -> bool:
        """Whether the whole interval lies beyond the target; between this and `reached` nothing is decided."""
        return self.low > self.target if self.at_most else self.high < self.target

    def as_json(self) -> dict[str, Any]:
        """The form in which results are kept."""
        shown = {"name": self.name, "value": self.value, "low": self.low, "high": self.high, "target": self.target}
        return {**shown, "reached": self.reached}

    def __str__(self) -> str:
        sign = "<=" if self.at_most else ">="
        verdict = "reached" if self.reached else "missed" if self.missed else "not decided"
        interval = f"[{self.low:.4g}, {self.high:.4g}]"
        return f"{self.name}: {self.value:.4g} {interval} target {sign} {self.target:g} {verdict}"


def arguments(text: str | None) -> argparse.ArgumentParser:
    """A parser with the flags that every benchmark takes."""
    parser = argparse.ArgumentParser(description=(text or "").split("\n")[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the result here")
    parser.add_argument("--seed", type=int, default=0, help="other seeds draw other prompts and noises")
    parser.add_argument("--quick", action="store_true", help="a small sample, under two minutes")
    return parser


def ratio(ours: Sequence[float], theirs: Sequence[float], seed: int = 0) -> tuple[float, float, float]:
    """Median of the ratios of paired measurements, with the 95 % interval of a bootstrap over the pairs."""
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    draw = random.Random(seed)
    medians = sorted(statistics.median(draw.choices(ratios, k=len(ratios))) for _ in range(2000))
    return statistics.median(ratios), medians[50], medians[1949]


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as a Markdown table with the first row's columns; a column that another row lacks stays empty there."""
    columns = list(rows[0])
    lines = [columns, ["---"] * len(columns)]
    for row in rows:
        values = [row.get(column, "") for column in columns]
        lines.append([f"{value:.4g}" if isinstance(value, float) else str(value) for value in values])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def finish(options: argparse.Namespace, rows: Sequence[Mapping[str, Any]], bars: Sequence[Bar], device: str) -> int:
    """Print the table and the bars, write the JSON where asked; the exit status is 1 when one is missed."""
    print("\n" + table(rows) + "\n", flush=True)
    for bar in bars:
        print(bar)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        result = {
            "bars": [bar.as_json() for bar in bars],
            "rows": list(rows),
            "seed": options.seed,
            "quick": options.quick,
            "device": device,
            "python": platform.python_version(),
            "versions": {name: version(name) for name in PACKAGES},
        }
        options.json.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    return 1 if any(bar.missed for bar in bars) else 0
