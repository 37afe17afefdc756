"""Architectures of Transformers and torchvision, small, with random weights and statistics of their own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

WORDS, LENGTH, PADDED = 1000, 32, 24
"""Size of the vocabulary, length of a text, and of what of it is not padding."""

_TEXT = {"num_hidden_layers": 4, "hidden_size": 256, "num_attention_heads": 4, "intermediate_size": 1024}
_DECODER = {"num_hidden_layers": 4, "hidden_size": 256, "num_attention_heads": 8, "intermediate_size": 688}
_IMAGE = {**_TEXT, "image_size": 96, "patch_size": 16}
_RELATIVE = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]}


@dataclass(frozen=True)
class Architecture:
    """A network and what it is fed.

    Attributes:
        name: As in the table.
        build: Makes it, a PyTorch module.
        feeds: The names of its inputs.
        shape: The shape of each.
    """

    name: str
    build: Callable[[], Any]
    feeds: tuple[str, ...]
    shape: tuple[int, ...]

    def feed(self) -> dict[str, np.ndarray]:
        """One sample: words, with padding behind the first if there is a mask; else normal numbers."""
        rng = np.random.default_rng(0)
        if self.feeds[0] != "input_ids":
            return {self.feeds[0]: rng.standard_normal(self.shape).astype(np.float32)}
        found = {"input_ids": rng.integers(1, WORDS, self.shape)}
        if "attention_mask" in self.feeds:
            mask = np.ones(self.shape, np.int64)
            mask[1, PADDED:] = 0
            found["attention_mask"] = mask
        return found


def _of_transformers(name: str, kind: str, config: dict[str, Any], suffix: str = "Model") -> Callable[[], Any]:
    def build() -> Any:
        import transformers

        made = getattr(transformers, f"{kind}Config")(attn_implementation="eager", **config)
        return getattr(transformers, f"{kind}{suffix}")(made)

    return build


def _of_torchvision(name: str) -> Callable[[], Any]:
    def build() -> Any:
        import torchvision

        options = {"init_weights": True} if name in ("googlenet", "inception_v3") else {}
        return torchvision.models.get_model(name, weights=None, **options)

    return build


def _texts() -> list[Architecture]:
    both, ids, shape = ("input_ids", "attention_mask"), ("input_ids",), (2, LENGTH)
    words = {"vocab_size": WORDS}
    found = [
        ("bert", "Bert", {**_TEXT, **words}, "Model", both),
        ("roberta", "Roberta", {**_TEXT, **words}, "ForSequenceClassification", both),
        ("electra", "Electra", {**_TEXT, **words}, "Model", both),
        ("albert", "Albert", {**_TEXT, **words, "embedding_size": 64}, "Model", ids),
        ("deberta", "DebertaV2", {**_TEXT, **words, **_RELATIVE}, "Model", both),
        (
            "distilbert",
            "DistilBert",
            {**words, "dim": 256, "n_layers": 4, "n_heads": 4, "hidden_dim": 1024},
            "Model",
            both,
        ),
        ("clip, text", "CLIPText", {**_TEXT, **words, "max_position_embeddings": 77}, "Model", ids),
        (
            "t5, encoder",
            "T5",
            {**words, "d_model": 256, "d_kv": 32, "d_ff": 1024, "num_layers": 4},
            "EncoderModel",
            ids,
        ),
        ("gpt2", "GPT2", {**words, "n_embd": 256, "n_layer": 4, "n_head": 4, "use_cache": False}, "LMHeadModel", ids),
        (
            "mamba",
            "Mamba",
            {**words, "hidden_size": 128, "num_hidden_layers": 2, "use_cache": False},
            "ForCausalLM",
            ids,
        ),
    ]
    decoder = {**_DECODER, **words, "use_cache": False}
    grouped = {**decoder, "num_key_value_heads": 2}
    for name, kind, config in (
        ("llama", "Llama", grouped),
        ("qwen2", "Qwen2", grouped),
        ("gemma", "Gemma", {**grouped, "head_dim": 32}),
        ("phi", "Phi", decoder),
        ("gpt-neox", "GPTNeoX", decoder),
    ):
        found.append((name, kind, config, "ForCausalLM", ids))
    return [
        Architecture(name, _of_transformers(name, kind, config, suffix), feeds, shape)
        for name, kind, config, suffix, feeds in found
    ]


def _images() -> list[Architecture]:
    pixels = ("pixel_values",)
    found = [
        ("vit", "ViT", _IMAGE, "ForImageClassification", (2, 3, 96, 96)),
        ("clip, image", "CLIPVision", _IMAGE, "Model", (2, 3, 96, 96)),
        ("dinov2", "Dinov2", {**_IMAGE, "image_size": 98, "patch_size": 14}, "Model", (1, 3, 98, 98)),
        (
            "swin",
            "Swin",
            {"image_size": 64, "embed_dim": 48, "depths": [2, 2], "num_heads": [3, 6], "window_size": 4},
            "Model",
            (2, 3, 64, 64),
        ),
        (
            "convnext",
            "ConvNext",
            {"hidden_sizes": [48, 96, 192, 384], "depths": [2, 2, 2, 2]},
            "ForImageClassification",
            (2, 3, 64, 64),
        ),
        ("segformer", "Segformer", {"depths": [1, 1, 1, 1]}, "ForSemanticSegmentation", (1, 3, 64, 64)),
        ("mobilevit", "MobileViT", {"image_size": 64}, "ForImageClassification", (1, 3, 64, 64)),
        (
            "yolos",
            "Yolos",
            {**_IMAGE, "image_size": [96, 96], "num_detection_tokens": 20},
            "ForObjectDetection",
            (1, 3, 96, 96),
        ),
    ]
    return [
        Architecture(name, _of_transformers(name, kind, config, suffix), pixels, shape)
        for name, kind, config, suffix, shape in found
    ]


def _convolutions() -> list[Architecture]:
    sizes = {"inception_v3": 299}
    names = ("mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0", "densenet121", "googlenet", "shufflenet_v2_x1_0")
    names += ("regnet_y_400mf", "squeezenet1_1", "mnasnet1_0", "inception_v3")
    found = []
    for name in names:
        size = sizes.get(name, 128)
        found.append(Architecture(name, _of_torchvision(name), ("x",), (1, 3, size, size)))
    return found


ARCHITECTURES = (*_texts(), *_images(), *_convolutions())
