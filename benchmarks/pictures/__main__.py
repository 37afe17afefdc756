"""Writes ``docs/pictures``. It needs playwright and Chromium. See ``python -m benchmarks.pictures --help``."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import shutil
import sys
import tempfile
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from layerdiff.compare.cli.command import main as compare
from layerdiff.graph.numpy_files import write_npz
from onnx import numpy_helper

from benchmarks.faults import cases
from benchmarks.kit.pages import DOCS

PICTURES = DOCS / "pictures"
DIGITS = DOCS.parent / "examples" / "digits"
WIDTH, HEIGHT, COLUMNS = 1280, 1400, 110


@dataclass(frozen=True)
class Shot:
    """A picture.

    Attributes:
        words: The command line, from the folder that `files` fills.
        files: Writes what the command reads into a folder.
        dark: Whether the page is dark.
        until: The element whose end is the end of the picture: a page is longer than a picture should be.
    """

    words: Sequence[str]
    files: Callable[[Path], None] = lambda folder: None
    dark: bool = False
    until: str = "#layer-section"


def digits(folder: Path) -> None:
    """The network of the examples."""
    for file in DIGITS.iterdir():
        if file.suffix in (".onnx", ".npz", ".pb", ".npy"):
            shutil.copy(file, folder)


def outlier(folder: Path) -> None:
    """The network of the examples with one channel 200 times as large, and the weights that read it as much smaller."""
    digits(folder)
    proto = onnx.load(folder / "digits.onnx")
    weights = {t.name: t for t in proto.graph.initializer}
    first, second = (next(n for n in proto.graph.node if n.name == name) for name in ("Conv__40", "Conv__42"))
    for name, factor, where in (
        (first.input[1], 200, np.s_[5]),
        (first.input[2], 200, np.s_[5]),
        (second.input[1], 1 / 200, np.s_[:, 5]),
    ):
        values = numpy_helper.to_array(weights[name]).copy()
        values[where] *= factor
        weights[name].CopyFrom(numpy_helper.from_array(values, name))
    onnx.save(proto, folder / "outlier.onnx")


def overflowing(folder: Path) -> None:
    """A network with an activation beyond FP16's greatest value."""
    case = next(cases.generate(["overflow_fp16"], ["resnet"]))
    case.write(folder)
    (folder / "data").mkdir()
    for number, feed in enumerate(case.feeds()):
        write_npz(folder / "data" / f"sample{number}.npz", feed)


UNET = """\
import torch
from torch import nn


class Block(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1)

    def forward(self, x):
        x = torch.relu(self.first(x))
        return torch.relu(self.second(x))


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.down1, self.down2 = Block(1, 8), Block(8, 16)
        self.middle = Block(16, 32)
        self.up2, self.up1 = Block(48, 16), Block(24, 8)
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, image):
        one = self.down1(image)
        two = self.down2(nn.functional.max_pool2d(one, 2))
        low = self.middle(nn.functional.max_pool2d(two, 2))
        up = nn.functional.interpolate(low, scale_factor=2)
        up = self.up2(torch.cat([up, two], 1))
        up = nn.functional.interpolate(up, scale_factor=2)
        return self.head(self.up1(torch.cat([up, one], 1)))
"""


def unet(folder: Path) -> None:
    """A UNet of PyTorch, as a program and as the ONNX file that was exported from it before it was trained on."""
    import torch

    torch.manual_seed(0)
    module = sys.modules["unet"] = types.ModuleType("unet")
    exec(compile(UNET, "unet.py", "exec"), vars(module))  # so that the path of the source is a short one
    network = module.UNet().eval()
    images = torch.rand(2, 1, 32, 32)
    torch.onnx.export(network, (images,), folder / "unet.onnx", dynamo=True, verbose=False)
    with torch.no_grad():
        network.up2.second.weight[3:6] *= 1.05
    torch.export.save(torch.export.export(network, (images,)), folder / "unet.pt2")
    np.savez(folder / "images.npz", image=images.numpy())


DATA = ("--data", "heldout.npz")
FIX = ("--tolerance", "probabilities:0,0.01", "--fix", "plan.json")
SHOTS = {
    "all-well": Shot(("digits.onnx", "--onnxrt", "--emulate=fp16", *DATA, "--layers"), digits),
    "broken-export": Shot(("digits.onnx", "broken.onnx", "--onnxrt", *DATA, "--layers"), digits, dark=True),
    "overflow": Shot(("reference.onnx", "--onnxrt", "--emulate=fp16", "--data", "data", "--layers"), overflowing),
    "int8-outlier": Shot(
        ("outlier.onnx", "--onnxrt", "--emulate=int8", *DATA, "--labels", "labels.npy", "--metric", "top1", "--layers"),
        outlier,
    ),
    "pytorch": Shot(("unet.onnx", "--onnxrt", "--torch", "unet.pt2", "--data", "images.npz", "--layers"), unet),
    "tensorflow": Shot(("digits.pb", "--tf", "--onnxrt", *DATA, "--layers"), digits),
    "plan": Shot(
        (
            "digits.onnx",
            "--onnxrt",
            "--emulate=bf16",
            *DATA,
            "--tolerance",
            "probabilities:0,0.01",
            "--fix",
            "plan.json",
        ),
        digits,
        until="#plan",
    ),
}


def take(name: str, shot: Shot, browser: Any) -> None:
    """One comparison, as a page and as a terminal shows it."""
    from rich.console import Console
    from rich.text import Text

    here = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        shot.files(Path(folder))
        os.chdir(folder)
        shown = io.StringIO()
        with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(io.StringIO()):
            compare([*shot.words, "--html", "page.html"])
        page = browser.new_page(viewport={"width": WIDTH, "height": 900}, color_scheme="dark" if shot.dark else "light")
        page.goto(f"file://{folder}/page.html")
        page.wait_for_selector("html[data-ready=yes]")
        page.wait_for_timeout(500)
        box = page.locator(shot.until).first.bounding_box() or {"y": 0, "height": HEIGHT}
        clip = {"x": 0, "y": 0, "width": WIDTH, "height": box["y"] + box["height"] + 16}
        page.screenshot(path=PICTURES / f"{name}.png", full_page=True, clip=clip)
        command = f"$ compare {' '.join(shot.words)}\n\n"
        console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
        console.print(Text.from_ansi(command + shown.getvalue()))
        style = "<style>body{margin:14px;background:#fff} pre{font-size:14px!important;line-height:1.35}</style>"
        Path("terminal.html").write_text(style + console.export_html(inline_styles=True), "utf-8")
        page.set_viewport_size({"width": 1000, "height": 100})
        page.emulate_media(color_scheme="light")
        page.goto(f"file://{folder}/terminal.html")
        page.screenshot(path=PICTURES / f"{name}-terminal.png", full_page=True)
        page.close()
        os.chdir(here)
    print(name, flush=True)


def main() -> int:
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(prog="python -m benchmarks.pictures", description=__doc__)
    parser.add_argument("only", nargs="*", help=f"some of {', '.join(SHOTS)}")
    wanted = parser.parse_args().only or list(SHOTS)
    os.environ.update({"COLUMNS": str(COLUMNS), "FORCE_COLOR": "1"})
    with sync_playwright() as playwright:
        path = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        for name in wanted:
            take(name, SHOTS[name], browser)
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
