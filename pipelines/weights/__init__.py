"""Adapter files <-> deltas; the only place that knows key names.

`header.read_header` checks a file without loading it, `identify.identify` says what it is, `reader.read` brings its
deltas. One file per naming scheme. This module imports no torch, so that a library can be scanned without it.
"""

from pipelines.weights.header import Header, TensorInfo, read_header
from pipelines.weights.identify import Identity, identify

__all__ = ["Header", "Identity", "TensorInfo", "identify", "read_header"]
