"""What the user may say of prompts. No NumPy in here: the command reads it for its help."""

from __future__ import annotations

import os
from dataclasses import dataclass

from ..graph.errors import DataError
from ..graph.options import Whole, check, option


@dataclass(frozen=True)
class PromptOptions:
    """How prompts are read.

    Attributes:
        tokenizer: A ``tokenizer.json``, or the folder that holds it; None: the prompts are token ids.
        batch: Prompts of one sample; shorter ones are padded on the right, and the mask says so.
    """

    tokenizer: str | os.PathLike[str] | None = option(
        None,
        "--tokenizer",
        "for --data with prompts as text: tokenizer.json, or the folder that holds it",
        group="data",
        metavar="PATH",
    )
    batch: int = option(1, "--batch", "prompts of one sample (1)", Whole(1), "data", metavar="N")

    def __post_init__(self) -> None:
        check(self, DataError)
