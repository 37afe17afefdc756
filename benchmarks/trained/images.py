"""Pictures: photographs and faces out of a package, and lines and pages of text, drawn by Pillow."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .packages import Package, Unavailable

if TYPE_CHECKING:
    from PIL import Image

PHOTOS = Package(
    "scikit-image",
    "0.26.0",
    "74aa5518ccea28121f57a95374581d3b979839adc25bb03f289b1bc9b99c58af",
    ("skimage/data/*.png", "skimage/data/*.jpg", "skimage/data/lfw_subset.npy"),
    ("3.11", "cp311", "manylinux_2_28_x86_64"),
)


def pillow(module: str) -> Any:
    """A module of Pillow.

    Raises:
        Unavailable: Pillow is not installed.
    """
    try:
        return __import__(f"PIL.{module}", fromlist=[module])
    except ImportError as error:
        raise Unavailable("Pillow draws and reads the pictures: pip install pillow.") from error


def photo(cache: Path, name: str, height: int, width: int, *, left: float = 0.5, flip: bool = False) -> np.ndarray:
    """A photograph of scikit-image: the largest part of the shape asked for, resized to it.

    Args:
        name: The file's name.
        left: Which part, where the photograph is wider or higher: 0 its beginning, 1 its end.
        flip: Mirrors it.

    Returns:
        Red, green and blue from 0 to 255: (height, width, 3), float32.
    """
    image = pillow("Image").open(PHOTOS.fetch(cache) / "skimage/data" / name).convert("RGB")
    part = min(image.width / width, image.height / height)
    x, y = left * (image.width - part * width), left * (image.height - part * height)
    pixels = _pixels(image.resize((width, height), 2, (x, y, x + part * width, y + part * height)))
    return pixels[:, ::-1] if flip else pixels


def cut(cache: Path, name: str, box: tuple[int, int, int, int], height: int, width: int) -> np.ndarray:
    """The part of a photograph inside ``box`` (left, top, right, bottom, in its pixels), resized; see `photo`."""
    image = pillow("Image").open(PHOTOS.fetch(cache) / "skimage/data" / name).convert("RGB")
    return _pixels(image.resize((width, height), 2, box))


def faces(cache: Path, rows: int, columns: int, size: int, seed: int) -> np.ndarray:
    """Faces of the data set Labeled Faces in the Wild side by side, of 25 pixels each, resized; see `photo`."""
    grey = np.load(PHOTOS.fetch(cache) / "skimage/data/lfw_subset.npy")[:100]
    chosen = np.random.default_rng(seed).choice(grey, rows * columns, replace=False)
    grid = chosen.reshape(rows, columns, 25, 25).swapaxes(1, 2).reshape(rows * 25, columns * 25)
    image = pillow("Image").fromarray((grid / grid.max() * 255).astype(np.uint8))
    return _pixels(image.convert("RGB").resize((columns * size, rows * size), 2))


def text_line(text: str, height: int, width: int, seed: int) -> np.ndarray:
    """A line of dark text on a bright ground, in a little noise; see `photo`."""
    rng = np.random.default_rng(seed)
    ground, ink = rng.integers(190, 256, 3), rng.integers(0, 90, 3)
    image = pillow("Image").new("RGB", (width, height), tuple(map(int, ground)))
    size = height * 0.6
    while font(size).getlength(text) > width - 12:
        size *= 0.95
    pillow("ImageDraw").Draw(image).text((6, height / 2), text, tuple(map(int, ink)), font(size), anchor="lm")
    return np.clip(_pixels(image) + rng.normal(scale=6, size=(height, width, 1)), 0, 255).astype(np.float32)


def text_page(lines: tuple[str, ...], ground: np.ndarray, seed: int) -> np.ndarray:
    """Lines of text of several sizes and colours over a picture; see `photo`."""
    rng = np.random.default_rng(seed)
    image = pillow("Image").fromarray(ground.astype(np.uint8))
    draw = pillow("ImageDraw").Draw(image)
    y = 8.0
    for line in lines:
        size = float(rng.uniform(14, 30))
        if y + size > image.height:
            break
        ink = tuple(map(int, rng.integers(0, 80, 3)))
        draw.text((float(rng.uniform(4, 30)), y), line, ink, font(size), stroke_width=2, stroke_fill=(245, 245, 240))
        y += size * float(rng.uniform(1.3, 2.0))
    return _pixels(image)


@cache
def font(size: float) -> Any:
    """Pillow's own font, in pixels."""
    return pillow("ImageFont").load_default(size)


def planes(images: list[np.ndarray]) -> np.ndarray:
    """Pictures as (N, C, H, W), float32."""
    return np.ascontiguousarray(np.stack(images).transpose(0, 3, 1, 2), np.float32)


def _pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image, np.float32)
