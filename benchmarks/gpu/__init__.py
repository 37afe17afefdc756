"""What runs on a GPU, and prepares or rehearses it: docs/gpu.md. Run each from the checkout, as a module.

::

    export.py, trained.py, public.py   networks: torchvision's, small trained ones, those that others published
    networks.py                        verdict, error, latency and build time in several modes
    accuracy.py                        what number formats cost a classifier
    emulation.py, tolerance.py         TensorRT's error beside that of emulation, and the share of what is allowed
    faults.py, polygraphy_faults.py    faults that FP16 makes: who names the culprit
    engines.py                         engines as models, several profiles
    ondevice.py                        comparing on the GPU, against downloading
"""
