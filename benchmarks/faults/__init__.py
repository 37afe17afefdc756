"""A benchmark of faults: plants one known fault at one known node, asks for the culprit, and keeps the score.

::

    plants/       the kinds of faults; each changes a network at one node, and says which causes are honest answers
    rewrites.py   other forms of a network, in which nothing is wrong
    case.py       one case: two models, and who would be right about them
    cases.py      all cases with a fault, those dropped because the fault changed nothing left out and counted
    clean.py      pairs in which nothing is wrong
    baseline.py   what Polygraphy's default comparison, and a plain one, would have named
    running.py    asks layerdiff about cases, in one process or in several
    __main__.py   keeps the score and writes docs/faults.md

Run it from the checkout: ``python -m benchmarks.faults``.
"""
