"""Exports torchvision networks to ONNX for the other scripts here. Needs PyTorch and torchvision.

    python -m benchmarks.gpu.export OUT_DIR [--settle] [NAME ...]

Weights are random (torchvision's initialization, seed 0). With ``--settle`` the statistics of BatchNormalization are
set by one forward pass over random images. Activations then have unit variance everywhere, as in a trained network; but
a deep network of random weights amplifies every perturbation then, which a trained one does not (docs/gpu.md).
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

SIZES = {"resnet50": 224, "vgg19": 224, "inception_v3": 299, "resnet152": 224, "mobilenet_v2": 224, "densenet121": 224}


def settle(network, x) -> None:
    import torch

    norms = [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
        norm.train()
    with torch.no_grad():
        network(x)
    network.eval()


def export(name: str, folder: Path, settled: bool) -> None:
    import torch
    import torchvision

    torch.manual_seed(0)
    start = time.perf_counter()
    extra = {"init_weights": True, "aux_logits": True} if name == "inception_v3" else {}
    network = getattr(torchvision.models, name)(weights=None, **extra).eval()
    if name == "inception_v3":
        network.aux_logits = False
        network.AuxLogits = None
    x = torch.randn(8, 3, SIZES[name], SIZES[name])
    if settled:
        settle(network, x)
    path = folder / f"{name}.onnx"
    torch.onnx.export(
        network,
        (x,),
        str(path),
        input_names=["x"],
        output_names=["y"],
        dynamic_axes={"x": {0: "n"}, "y": {0: "n"}},
        opset_version=17,
        dynamo=False,
    )
    print(f"{name}: {path.stat().st_size / 1e6:.0f} MB in {time.perf_counter() - start:.0f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", default=["resnet50", "inception_v3", "vgg19"], metavar="NAME")
    parser.add_argument("--settle", action="store_true", help="statistics of BatchNormalization from random images")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for name in arguments.names:
        export(name, arguments.folder, settled=arguments.settle)


if __name__ == "__main__":
    main()
