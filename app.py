"""Start the studio: flags -> Settings -> Studio -> page. `python app.py --help` lists the flags."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from studio import settings, ui
from studio.errors import StudioError


def flags() -> argparse.ArgumentParser:
    """The flags; one that is not given leaves the environment, the TOML file or the default as it is."""
    parser = argparse.ArgumentParser("app.py", description="Compose LoRAs in the browser.")
    add = parser.add_argument
    add("--listen", dest="host", nargs="?", const="0.0.0.0", metavar="ADDRESS", help="be reachable from elsewhere")
    add("--port", type=int, help="7860 if not given; 0 takes a free one")
    add("--share", action="store_true", default=None, help="also reachable through Gradio's public relay")
    add("--key", help="the key asked for beyond this machine; made and shown if not given")
    add("--host-name", dest="host_names", action="append", metavar="NAME", help="a further name of this server")
    add("--data-dir", type=Path, metavar="DIR", help="everything the studio writes; data/ if not given")
    add(
        "--adapter-dir", dest="adapter_dirs", action="append", type=Path, metavar="DIR", help="more adapters, only read"
    )
    add("--base-dir", dest="base_dirs", action="append", type=Path, metavar="DIR", help="more bases, only read")
    for name, choices in CHOICES.items():
        add(f"--{name}", choices=choices)
    add("--config", type=Path, metavar="FILE", help="settings as TOML")
    return parser


CHOICES = {
    "device": ("auto", "cuda", "mps", "cpu"),
    "dtype": ("auto", "float32", "bfloat16", "float16"),
    "attention": ("auto", "sdpa", "xformers"),
    "offload": ("auto", "none", "model", "sequential"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until Ctrl-C; 2 with one sentence if a flag or a file does not fit."""
    try:
        ui.serve(settings.load(**vars(flags().parse_args(arguments))))
    except StudioError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except KeyboardInterrupt:
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
