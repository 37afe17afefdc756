"""What a run tells while it goes on. The command draws it; in Python it is silent unless asked."""

from __future__ import annotations


class Progress:
    """Receives what is happening now. This one ignores it; reporters override what they show."""

    def stage(self, text: str) -> None:
        """A stage began: "onnxrt: building the engine"."""

    def advance(self, done: int, total: int, unit: str = "samples") -> None:
        """``done`` of ``total`` are behind us in the present stage."""

    def clear(self) -> None:
        """Whatever is drawn goes away: something else is about to be printed."""


SILENT = Progress()
