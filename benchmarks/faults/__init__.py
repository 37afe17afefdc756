"""A benchmark of faults: plants one known fault at one known node, asks for the culprit, and keeps the score.

::

    build.py      writes an ONNX graph node by node, with the activations at hand
    networks.py   the networks: seeded weights of realistic scale, BatchNormalization statistics that match
    plants.py     the kinds of faults; each changes a network at one node, and says which causes are honest answers
    clean.py      pairs in which nothing is wrong
    cases.py      all cases, those dropped because the fault changed nothing left out and counted
    baseline.py   what Polygraphy's default comparison, and a plain one, would have named
    __main__.py   runs the cases, keeps the score and writes docs/faults.md

Run it from the checkout: ``python -m benchmarks.faults``.
"""
