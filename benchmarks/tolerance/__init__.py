"""Holds outputs of healthy and of broken networks against the error that rounding is expected to make.

::

    networks.py   healthy networks: those of benchmarks/kit, heads that are hard on a tolerance, the onnx package's
    small.py      healthy networks whose outputs are smaller than the terms they are made of
    faults.py     one fault at one node, of a dozen kinds
    judged.py     the verdicts on both, in one process or in several
    __main__.py   writes the tables into docs/tolerance.md

Run it from the checkout: ``python -m benchmarks.tolerance``.
"""
