"""How much of the automatic tolerance healthy networks use, and whether faults break it.

::

    networks.py   healthy networks: those of benchmarks/faults, heads that are hard on a tolerance, the onnx package's
    small.py      healthy networks whose outputs are smaller than the terms they are made of
    faults.py     one fault at one node, of a dozen kinds
    __main__.py   measures both, and writes the tables into docs/tolerance.md

Run it from the checkout: ``python -m benchmarks.tolerance``.
"""
