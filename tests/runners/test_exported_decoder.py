"""A Llama as transformers and PyTorch's exporter write it: recognized, and the same however it is fed."""

from __future__ import annotations

import pytest
from layerdiff import Comparator, EmulateRunner, OnnxrtRunner
from layerdiff.runners.schedules import DecodeRunner, UnbatchedRunner

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SLOTS = [f"{layer}.{kind}" for layer in range(2) for kind in ("key", "value")]
PASTS, PRESENTS = ([f"{word}.{slot}" for slot in SLOTS] for word in ("past_key_values", "present"))


class Exported(torch.nn.Module):
    """The decoder with its cache as plain inputs and outputs, which is how Optimum exports it."""

    def __init__(self, model) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask, position_ids, *pasts):
        cache = transformers.DynamicCache(config=self.model.config)
        for layer in range(2):
            cache.update(pasts[2 * layer], pasts[2 * layer + 1], layer)
        words = {"input_ids": input_ids, "attention_mask": attention_mask, "position_ids": position_ids}
        made = self.model(**words, past_key_values=cache, use_cache=True)
        return made.logits, *(t for layer in made.past_key_values.layers for t in (layer.keys, layer.values))


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    """The path of a Llama of two layers with random weights."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=64, max_position_embeddings=64, attn_implementation="eager",
    )  # fmt: skip
    ids, mask = torch.randint(0, 64, (2, 5)), torch.ones(2, 8, dtype=torch.int64)
    pasts = [torch.randn(2, 2, 3, 8) for _ in PASTS]
    path = tmp_path_factory.mktemp("llama") / "llama.onnx"
    sizes = {0: "batch_size", 1: "sequence_length"}
    torch.onnx.export(
        Exported(transformers.LlamaForCausalLM(config).eval()),
        (ids, mask, torch.arange(3, 8).expand(2, 5).contiguous(), *pasts),
        str(path),
        input_names=["input_ids", "attention_mask", "position_ids", *PASTS],
        output_names=["logits", *PRESENTS],
        dynamic_axes={
            **dict.fromkeys(("input_ids", "position_ids", "logits"), sizes),
            "attention_mask": {0: "batch_size", 1: "total_sequence_length"},
            **{key: {0: "batch_size", 2: "past_sequence_length"} for key in PASTS},
            **{key: {0: "batch_size", 2: "total_sequence_length"} for key in PRESENTS},
        },
        opset_version=17,
        dynamo=False,
    )
    return path


@pytest.mark.slow
def test_an_exported_llama_passes_in_fp16_and_however_it_is_fed(llama):
    runners = [OnnxrtRunner(), EmulateRunner(format="fp16"), DecodeRunner(), UnbatchedRunner()]
    report = Comparator(llama, runners, metric="logits", layers="guilty").compare()
    assert (report.verdict, report.culprits) == ("pass", ())
    assert "a decoder with a cache of 2 layers" in report.data.notes[0]
    assert {output.tensor for output in report.outputs} == {"logits", *PRESENTS}
