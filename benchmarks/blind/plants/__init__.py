"""The kinds of faults: each changes a model at one place that is drawn, and says who would be right about it.

::

    kind.py        what a kind is
    weights.py     constants that differ
    attributes.py  attributes and integer operands that differ
    structure.py   other operators, and edges that lead elsewhere
"""

from . import attributes, structure, weights

KINDS = {kind.__name__: kind for kind in (*weights.ALL, *attributes.ALL, *structure.ALL)}
"""Functions from a `Graph`, which is changed in place, and a source of chance to a `Planted`, by name."""
