"""How many culprits are reduced to a few nodes that fail alone, and how long that takes.

Every planted fault of `benchmarks.faults`, and the cases of a folder like those of its reports, are compared layer by
layer; then ``layerdiff reduce`` is asked for the first culprit. A case counts as reduced if the bundle has at most five
nodes and its script, run by another process, shows the difference.
"""

from __future__ import annotations
