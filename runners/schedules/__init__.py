"""The same network on the same runner, fed otherwise."""

from .runner import DecodeRunner, UnbatchedRunner

__all__ = ["DecodeRunner", "UnbatchedRunner"]
