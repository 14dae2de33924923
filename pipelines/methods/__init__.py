"""Composition methods: one file each, one import line each."""

from pipelines.methods import merge

__all__ = ["merge"]
