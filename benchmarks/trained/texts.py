"""Texts in several languages, files of several kinds, and the numbers that networks are fed of them."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import os
import plistlib
import pydoc
import re
import tarfile
import unicodedata
import wave
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

ENGLISH = (
    "The quick brown fox jumps over the lazy dog.",
    "Half precision holds 65504, and nothing above it.",
    "She sells sea shells by the sea shore.",
    "Which layer of the network is to blame for the error?",
    "The train to Lyon leaves at ten past nine from platform four, unless it is late again.",
    "Prices rose by 3.2 % in October.",
    "A cat sat on the mat.",
    "The committee has not yet decided whether the bridge should be repaired or replaced.",
    "How do I return an item that I bought online?",
    "Water boils at a lower temperature in the mountains, because the pressure of the air is lower there.",
    "He plays the violin rather well.",
    "The violin is something that he plays quite beautifully.",
    "No refunds after thirty days.",
    "Gradient descent follows the slope of the loss.",
    "It rained all week, so the match was moved to Sunday and the tickets stay valid.",
    "Photosynthesis turns light into sugar.",
    "Turn left after the bakery.",
    "My flight was cancelled; can I get my money back?",
    "The museum is closed on Mondays.",
    "Two of the three engines had been replaced before the accident, according to the report that was published later.",
    "Good morning!",
    "The recipe asks for two eggs, a cup of flour, butter and a pinch of salt.",
    "Quarterly earnings beat expectations, yet the shares fell.",
    "An apple a day keeps the doctor away.",
    "Her grandmother's clock has stopped at twenty to six since the earthquake.",
    "Please find the signed contract attached.",
    "The patient shows no symptoms.",
    "Octopuses have three hearts and blue blood.",
    "The parser reads a line, splits it at commas and skips what follows a hash.",
    "Is there a doctor on board?",
    "In 1969 two people walked on the moon, and a third one waited for them in orbit.",
    "Nobody knows.",
)

LINES = (
    "The quick brown fox",
    "jumps over the lazy dog",
    "0123456789",
    "layer by layer",
    "Half precision 65504",
    "Total amount 128.50",
    "tolerance 1e-3",
    "Which node is guilty",
    "Invoice 2024-0817",
    "Platform 4 to Lyon",
    "Please sign here",
    "closed on Mondays",
    "3.2 percent",
    "No smoking",
    "Gate B17",
    "Good morning",
)
"""Short lines for a reader of text."""

HOMOGRAPHS = (
    ("我在银行工作", 3, "hang2"),
    ("他的行为很奇怪", 2, "xing2"),
    ("这条路很长", 4, "chang2"),
    ("孩子长大了", 2, "zhang3"),
    ("他很快乐", 3, "le4"),
    ("我喜欢听音乐", 5, "yue4"),
    ("这本书很重", 4, "zhong4"),
    ("请再重复一遍", 2, "chong2"),
    ("天气很好", 3, "hao3"),
    ("他爱好运动", 2, "hao4"),
    ("银行还没开门", 2, "hai2"),
    ("我要还钱", 2, "huan2"),
    ("中国的首都是北京", 4, "du1"),
    ("大家都来了", 2, "dou1"),
    ("他觉得很累", 1, "jue2"),
    ("我要睡觉了", 3, "jiao4"),
)
"""A sentence, the place of a character that is read in several ways, and how it is read there."""

THAI = (
    ("ตัด", "คำ", "ได้", "ดี", "มาก"),
    ("ฉัน", "กิน", "ข้าว", "ที่", "บ้าน"),
    ("วันนี้", "อากาศ", "ร้อน", "มาก"),
    ("เขา", "ไป", "โรงเรียน", "ทุก", "วัน"),
)
"""Sentences, which are written without spaces, in words."""

ARABIC = (
    "بسم الله الرحمن الرحيم",
    "ذهب الولد إلى المدرسة",
    "كتب الطالب الدرس في الدفتر",
    "الشمس مشرقة والجو جميل اليوم",
)


class WordPiece:
    """BERT's tokens for text in lower case: the longest known beginning of a word, then of what is left of it."""

    def __init__(self, vocabulary: Sequence[str]) -> None:
        self.ids = {token: i for i, token in enumerate(vocabulary)}

    def __call__(self, text: str) -> list[int]:
        """Numbers of the tokens of ``text``, between [CLS] and [SEP]."""
        plain = unicodedata.normalize("NFD", text.lower())
        plain = "".join(c for c in plain if unicodedata.category(c) != "Mn")
        pieces = [piece for word in re.findall(r"\w+|[^\w\s]", plain) for piece in self._pieces(word)]
        return [self.ids[token] for token in ("[CLS]", *pieces, "[SEP]")]

    def _pieces(self, word: str) -> list[str]:
        pieces: list[str] = []
        start = 0
        while start < len(word):
            mark = "##" if start else ""
            end = next((end for end in range(len(word), start, -1) if mark + word[start:end] in self.ids), None)
            if end is None:
                return ["[UNK]"]
            pieces.append(mark + word[start:end])
            start = end
        return pieces


def padded(rows: Sequence[Sequence[int]], fill: int = 0) -> np.ndarray:
    """Rows of numbers, each filled up to the longest: int64."""
    length = max(map(len, rows))
    return np.array([[*row, *[fill] * (length - len(row))] for row in rows], np.int64)


def around(text: str, ids: Mapping[str, int], other: int, reach: int = 10) -> np.ndarray:
    """For each character, the ``reach`` behind it, the ``reach`` before it (nearest first) and itself: int64."""
    wide = [ids.get(c, other) for c in " " * reach + text + " " * reach]
    places = range(reach, reach + len(text))
    return np.array([wide[i + 1 : i + reach + 1] + wide[i - reach : i][::-1] + [wide[i]] for i in places], np.int64)


def files() -> list[tuple[str, bytes]]:
    """Files of sixteen kinds, or more of one: what each is (in Magika's words), and its bytes.

    Sources of Python's standard library, and what its modules write of them.
    """
    library = Path(os.__file__).parent
    names = ("argparse.py", "ast.py", "json/decoder.py", "heapq.py")
    sources = {name: (library / name).read_bytes() for name in names}
    text = sources["argparse.py"]
    table = [{"name": name, "bytes": len(source), "lines": source.count(b"\n")} for name, source in sources.items()]
    return [
        *(("python", source) for source in sources.values()),
        ("json", json.dumps(table * 20, indent=2).encode()),
        ("csv", _csv(table * 20)),
        ("html", pydoc.html.page("json", pydoc.html.document(json)).encode()),
        ("appleplist", plistlib.dumps({"files": table})),
        ("applebplist", plistlib.dumps({"files": table * 10}, fmt=plistlib.FMT_BINARY)),
        ("zip", _zip(sources)),
        ("tar", _tar(sources)),
        ("gzip", gzip.compress(text, mtime=0)),
        ("bzip", bz2.compress(text)),
        ("xz", lzma.compress(text)),
        ("wav", _wav()),
        ("pythonbytecode", _bytecode(library / "heapq.py")),
    ]


def beginning_and_end(content: bytes, length: int = 1024, padding: int = 256) -> list[int]:
    """The first and the last ``length`` bytes without the white space around them, what is missing filled up."""
    first, last = content[:4096].lstrip()[:length], content[-4096:].rstrip()[-length:]
    return [*first, *[padding] * (length - len(first)), *[padding] * (length - len(last)), *last]


def _csv(rows: list[dict[str, object]]) -> bytes:
    out = io.StringIO()
    writer = csv.DictWriter(out, rows[0])
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


def _zip(sources: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, source in sources.items():
            archive.writestr(zipfile.ZipInfo(name), source)
    return out.getvalue()


def _tar(sources: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, source in sources.items():
            info = tarfile.TarInfo(name)
            info.size = len(source)
            archive.addfile(info, io.BytesIO(source))
    return out.getvalue()


def _wav() -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes((8000 * np.sin(np.arange(16_000) / 7)).astype("<i2").tobytes())
    return out.getvalue()


def _bytecode(source: Path) -> bytes:
    import importlib.util
    import marshal

    code = compile(source.read_text(encoding="utf-8"), source.name, "exec")
    return importlib.util.MAGIC_NUMBER + bytes(12) + marshal.dumps(code)
