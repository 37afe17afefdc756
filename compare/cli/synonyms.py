"""What options are called elsewhere: words of Polygraphy, of trtexec and of many other commands."""

from __future__ import annotations

SYNONYMS = {
    # Polygraphy
    "--iterations": "--samples N",
    "--iters": "--samples N",
    "--val-range": "--float-range LO,HI, --int-range LO,HI or --range NAME:LO,HI",
    "--int-min": "--int-range LO,HI",
    "--int-max": "--int-range LO,HI",
    "--float-min": "--float-range LO,HI",
    "--float-max": "--float-range LO,HI",
    "--input-shapes": "--shape NAME:1x3x224x224",
    "--trt-min-shapes": "--shape NAME:min..opt..max",
    "--trt-opt-shapes": "--shape NAME:min..opt..max",
    "--trt-max-shapes": "--shape NAME:min..opt..max",
    "--load-inputs": "--data PATH, which reads Polygraphy's inputs too",
    "--data-loader-script": "--data FILE.py",
    "--data-loader": "--data PATH",
    "--abs": "--rtol R --atol A, or --tolerance NAME:R,A",
    "--rel": "--rtol R --atol A, or --tolerance NAME:R,A",
    "--check-error-stat": "--metric, --rtol with --atol, or nothing: every element is judged",
    "--validate": "nothing: NaN and infinities that one side alone has are always a failure",
    "--fail-fast": "stop = true in a file of checks: --suite FILE",
    "--trt-outputs": "--layers=all, which looks at every tensor",
    "--onnx-outputs": "--layers=all, which looks at every tensor",
    "--save-results": "--json PATH",
    "--onnxruntime": "--onnxrt",
    "--tensorrt": "--trt",
    "--tensorflow": "--tf",
    "--no-shape-inference": "nothing: shapes are inferred in memory, the file stays as it is",
    # trtexec
    "--onnx": "the model as a word of its own: compare model.onnx --trt --onnxrt",
    "--loadEngine": "the engine as a word of its own: compare model.engine --trt --onnxrt",
    "--saveEngine": "--save-engine PATH",
    "--minShapes": "--shape NAME:min..opt..max",
    "--optShapes": "--shape NAME:min..opt..max",
    "--maxShapes": "--shape NAME:min..opt..max",
    "--shapes": "--shape NAME:DIMS",
    "--loadInputs": "--data PATH",
    "--loadRefOutputs": "--load-outputs PATH, recorded outputs as a runner",
    "--best": "--trt=fp16 and --trt=int8: one runner for each format",
    "--memPoolSize": "--workspace SIZE",
    "--exportProfile": "--latency N",
    "--exportTimes": "--latency N",
    "--warmUp": "--latency N, which warms up first",
    # common words
    "--output": "--json, --html, --junit, --markdown, --csv or --text PATH",
    "--report": "--html PATH, or layerdiff report report.json",
    "--xml": "--junit PATH",
    "--md": "--markdown PATH",
    "--threshold": "--rtol R --atol A",
    "--tol": "--rtol R --atol A",
    "--batch-size": "--shape NAME:DIMS",
    "--gpu": "--onnxrt=cuda or --trt",
    "--cuda": "--onnxrt=cuda",
    "--device": "--onnxrt=cuda or --trt",
    "--num-samples": "--samples N",
    "--accuracy": "--metric top1 --labels FILE",
    "--layerwise": "--layers",
    "--bisect": "--layers",
    "--silent": "-q",
    "--continue": "--resume DIR, which keeps finished work there",
    "--restart": "--resume DIR, which keeps finished work there",
    "--checkpoint": "--resume DIR, which keeps finished work there",
    "--checkpoint-dir": "--resume DIR, which keeps finished work there",
    "--journal": "--resume DIR, which keeps finished work there",
    "--cache-dir": "--resume DIR, which keeps finished work there",
}
"""The foreign option -> what to write instead."""


def meant(flag: str) -> str | None:
    """What to write instead of an option of another tool; None if it is none's."""
    known = {name.casefold(): text for name, text in SYNONYMS.items()}
    word = flag.casefold()
    return known.get(word) or known.get(word.replace("_", "-"))
