"""How much of the automatic tolerance healthy networks use, and whether faults break it.

::

    networks.py   healthy networks: those of benchmarks/kit, heads that are hard on a tolerance, the onnx package's
    small.py      healthy networks whose outputs are smaller than the terms they are made of
    faults.py     one fault at one node, of a dozen kinds
    shares.py     how much of what is allowed an output uses
    sums.py       the same with sums in FP16: a program of its own
    __main__.py   measures both, and writes the tables into docs/tolerance.md

Run it from the checkout: ``python -m benchmarks.tolerance``.
"""
