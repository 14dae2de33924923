"""Makes assets/configs/clip from OpenAI CLIP's merge list: `python -m tools.clip_vocabulary FILE`.

FILE is bpe_simple_vocab_16e6.txt.gz of the package open_clip_torch (MIT). Ids follow CLIP's own tokenizer: 256 bytes,
the same bytes at a word's end, one id per merge, start and end of text.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import sys
from pathlib import Path

TARGET = Path(__file__).parent.parent / "assets" / "configs" / "clip"
SHA256 = "924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a"
SIZE = 49408
START, END = "<|startoftext|>", "<|endoftext|>"


def byte_letters() -> list[str]:
    """One visible letter per byte, printable bytes first, as CLIP and GPT-2 number them."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + index) for index in range(len(hidden))]


def tables(merge_list: str) -> tuple[dict[str, int], list[str]]:
    """Vocabulary (piece -> id) and the merges that it uses, from the text of the merge list (first line: a header)."""
    letters = byte_letters()
    merges = merge_list.split("\n")[1 : SIZE - 2 * len(letters) - 2 + 1]
    pieces = [*letters, *(letter + "</w>" for letter in letters), *(merge.replace(" ", "") for merge in merges)]
    return {piece: index for index, piece in enumerate([*pieces, START, END])}, merges


def write(name: str, text: str) -> None:
    """Write one file of the folder with Unix line ends on every system."""
    (TARGET / name).write_text(text, encoding="utf-8", newline="\n")


def main(source: Path) -> None:
    """Write the tokenizer's files; SystemExit if the source is another list."""
    data = source.read_bytes()
    if hashlib.sha256(data).hexdigest() != SHA256:
        raise SystemExit(f"{source} is not CLIP's merge list (its SHA256 differs).")
    vocabulary, merges = tables(gzip.decompress(data).decode("utf-8"))
    special = {"bos_token": START, "eos_token": END, "pad_token": END, "unk_token": END}
    options = {**special, "do_lower_case": True, "model_max_length": 77, "tokenizer_class": "CLIPTokenizer"}
    TARGET.mkdir(parents=True, exist_ok=True)
    write("vocab.json", json.dumps(vocabulary, ensure_ascii=False, separators=(",", ":")))
    write("merges.txt", "\n".join(["#version: 0.2", *merges, ""]))
    write("tokenizer_config.json", json.dumps(options, indent=2) + "\n")
    write("special_tokens_map.json", json.dumps(special, indent=2) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
