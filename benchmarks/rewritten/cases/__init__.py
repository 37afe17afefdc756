"""The cases, by subject. A case that starts from a trained network names it in `known`."""

from . import (
    attention,
    convolution,
    emulated,
    feedforward,
    indexing,
    normalization,
    preprocessing,
    quantized,
    recurrent,
    saved,
    typed,
)

SUBJECTS = {
    module.__name__.rpartition(".")[2]: (module.__doc__ or "").splitlines()[0].rstrip(".")
    for module in (
        attention, normalization, feedforward, convolution, preprocessing, recurrent, indexing, saved, quantized, typed,
        emulated,
    )
}  # fmt: skip
"""What the subjects are called, in the order of the page."""
