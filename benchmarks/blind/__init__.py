"""A benchmark of faults in trained networks, planted by an author who had not read layerdiff's code.

::

    graph.py     a model whose bodies are changed like its main graph
    plants/      the kinds of faults: weights, attributes, structure
    healthy.py   formats, quantized files and other forms of a network, in which nothing is wrong
    case.py      one case: a fault at a drawn place of a trained network, and who would be right about it
    running.py   asks layerdiff, within a time limit for each case
    table.py     the score, and docs/blind.md
    __main__.py  the command line

Run it from the checkout: ``python -m benchmarks.blind``. Results are written as they come, and a run that is begun
again with the same ``--results`` goes on where the last one ended.
"""
