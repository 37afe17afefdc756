"""What the user may say of random inputs. No NumPy in here: the command reads it for its help."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..graph.errors import DataError
from ..graph.options import Named, Pair, Whole, check, option

Number = int | float

INTEGERS = Pair("LO,HI", whole=True, ordered=True)
NUMBERS = Pair("LO,HI", ordered=True)


DEFAULT_SAMPLES = 4
"""Random samples where nobody says how many, and there are not more sets of shapes."""


@dataclass(frozen=True)
class RandomOptions:
    """How random inputs are drawn.

    Attributes:
        int_range: ``(lo, hi)`` of integers, ``hi`` not included.
        float_range: ``(lo, hi)`` of floats.
        seed: Samples of one seed are the same bytes at every pass and for every runner.
        samples: Number of samples; None: 4, or as many as there are sets of shapes if those are more.
        ranges: ``(lo, hi)`` by input name, with ``hi`` not included for integers.
    """

    int_range: tuple[int, int] | None = option(
        None, "--int-range", "range of random integers, HI excluded", INTEGERS, "data", metavar="LO,HI"
    )
    float_range: tuple[float, float] | None = option(
        None, "--float-range", "range of random floats", NUMBERS, "data", metavar="LO,HI"
    )
    seed: int = option(0, "--seed", "seed of random samples (0)", Whole(0), "data", metavar="S")
    samples: int | None = option(
        None,
        "--samples",
        "number of random samples (4); beside --data: take the first N",
        Whole(1),
        "data",
        metavar="N",
    )
    ranges: Mapping[str, tuple[Number, Number]] = option(
        dict, "--range", "range of one input", Named(NUMBERS, "NAME:LO,HI"), "data", metavar="NAME:LO,HI"
    )

    def __post_init__(self) -> None:
        check(self, DataError)
