"""Which tensor of one graph is which tensor of another, when names, order, folds, casts and opsets differ.

Every node gets two labels: one hashed from what lies before it, one from what lies behind it. Nodes whose labels are
equal and unique are matched; a matched node then passes its own identity on instead of a hash, so that a fault breaks
the labels around itself and nowhere else, and the labels are computed again until nothing new is found. This is done
first on a skeleton (products, recurrences, joins), in which whatever has a single source of data is invisible: folded
normalizations, other ways to write an activation, inserted casts and transpositions; then on all nodes. Names come
before structure where structure does not contradict them; weights' values break ties; what is still tied stays
unmatched.
"""

from __future__ import annotations

from ..index import GraphIndex
from .matcher import Matcher
from .result import Matching


def match(reference: GraphIndex, candidate: GraphIndex, *, static: bool = True) -> Matching:
    """Finds what corresponds in two graphs.

    Graph inputs and graph outputs correspond by exact name only.

    Args:
        reference: The graph that is believed.
        candidate: The graph that is judged.
        static: Whether to compare attributes and weights of matched nodes, which reads all weights once.
    """
    if reference is candidate or reference.proto is candidate.proto:
        return _identity(reference)
    return Matcher(reference, candidate).run(static)


def _identity(index: GraphIndex) -> Matching:
    names = [*index.inputs, *(o for node in index.nodes if node.op_type != "Constant" for o in node.output if o)]
    return Matching({name: name for name in names}, {p: p for p in range(len(index.nodes))})
