"""The kinds of faults, in the order of the table."""

from . import attributes, converters, formats, loops, weights, wiring
from .kinds import Kind as Kind
from .kinds import Plant as Plant

KINDS = {
    kind.name: kind
    for module in (weights, attributes, wiring, converters, loops, formats)
    for kind in vars(module).values()
    if isinstance(kind, Kind)
}
