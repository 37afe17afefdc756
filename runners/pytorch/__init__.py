"""PyTorch."""

from __future__ import annotations

from .runner import TorchRunner as TorchRunner
