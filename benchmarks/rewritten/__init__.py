"""A benchmark of files that were written again: by another exporter, an optimizer, a quantizer, or by hand.

Some of the cases are right, in other operators or in another order, and nobody is to be accused; the others have one
mistake of those that come in when a network is written again. Each has its expectation written beside it.

::

    expectation.py  what a right answer is, and the decorators that register a case
    writing.py      small networks from text, files of trained networks, and changes to them
    decoder.py      a decoder of three layers, with what may be wrong in one of them
    cases/          the cases, one function each, by subject
    running.py      builds a case and asks layerdiff, within a time limit
    table.py        the score, and docs/rewritten.md
    __main__.py     the command line

Run it from the checkout: ``python -m benchmarks.rewritten``. Results are written as they come, and a run that is begun
again with the same ``--results`` goes on where the last one ended.
"""
