"""Opening one-file checkpoints offline: the parts that such a file does not hold come from `assets/configs`."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def tokenizers(family: str, configs: Path) -> dict[str, Any]:
    """The tokenizers a single-file checkpoint needs. All share CLIP's words; SDXL's second pads with "!"."""
    from transformers import CLIPTokenizer

    folder = str(configs / "clip")
    found = {"tokenizer": CLIPTokenizer.from_pretrained(folder, local_files_only=True)}
    if family == "sdxl":
        found["tokenizer_2"] = CLIPTokenizer.from_pretrained(folder, local_files_only=True, pad_token="!")
    return found
