"""What the benchmarks share.

::

    bodies.py    a graph and the bodies inside it
    builder.py   writes an ONNX graph node by node, with the activations at hand
    inputs.py    pictures and texts
    networks.py  ten networks of different build: seeded weights of realistic scale, statistics that match
    resnet50.py  ResNet-50 with random weights
    runtime.py   ONNX Runtime, with and without graph optimizations; inner tensors
    pool.py      jobs in one process or in several
    process.py   peak memory and time of a child process
    pages.py     tables, and the pages and sections of docs/ that hold them
    results.py   results written as they come, within a time limit
"""
