"""Logits of a language model: what is measured, position by position, and what it decides."""

from __future__ import annotations

import re

import numpy as np
import onnx
import pytest
import scipy.special
from layerdiff import Comparator, EmulateRunner, OnnxrtRunner, UsageError
from layerdiff.compare.cli.command import main
from layerdiff.compare.comparison import Rules
from layerdiff.compare.outputs.logits import log_softmax
from layerdiff.compare.outputs.metric import criterion
from layerdiff.dataloaders import DataLoader
from layerdiff.graph.formats import FP32, INT8

from examples.tiny_decoder import Size, decoder
from support.models import parsed

MODEL = """g (int64[N, S] input_ids, int64[N, S] attention_mask) => (float[N, T, V] logits) {
  c = Cast<to = 1>(input_ids) a = Constant<value = int64[1] {2}>() logits = Unsqueeze(c, a) }"""
BATCH, LENGTH, VOCABULARY = 4, 10, 12
RNG = np.random.default_rng(0)
IDS = RNG.integers(0, VOCABULARY, (BATCH, LENGTH))
NEXT = np.roll(IDS, -1, axis=1)
NEXT[:, -1] = 0
TAUGHT = np.eye(VOCABULARY, dtype=bool)[NEXT]
LOGITS = RNG.normal(0, 1, (BATCH, LENGTH, VOCABULARY)).astype(np.float32) + 6 * TAUGHT.astype(np.float32)
"""A reference that thinks the next token most probable; behind the last one, token 0."""


@pytest.fixture
def judge(function_runner):
    """Compares logits; the candidate's arithmetic is INT8 unless said otherwise."""

    def run(candidate, reference=LOGITS, *, mask=None, arithmetic=INT8, model=MODEL, metric="logits", **rules):
        feed = {"input_ids": IDS, "attention_mask": np.ones_like(IDS) if mask is None else mask}

        def answer(logits):
            return lambda feed: {"logits": logits}

        runners = [
            function_runner(function=answer(reference), label="reference", rank=0),
            function_runner(function=answer(candidate), label="candidate", rank=1, number_format=arithmetic),
        ]
        return Comparator(parsed(model), runners, data_loader=[feed], metric=metric, **rules).compare()

    return run


def shifted(change: float | np.ndarray) -> np.ndarray:
    """Logits of which the log-probability of every taught token changes by ``change`` nats, and no decision does."""
    log_p = log_softmax(LOGITS)
    p = np.exp(np.where(TAUGHT, log_p, -np.inf).max(axis=-1, keepdims=True))
    wanted = p * np.exp(change)
    others = np.log((1 - wanted) / (1 - p))
    return np.where(TAUGHT, np.log(wanted), log_p + others).astype(np.float32)


# ---- what is measured -----------------------------------------------------------------------------------------------


def noisy(size: float) -> np.ndarray:
    return LOGITS + np.random.default_rng(1).normal(0, size, LOGITS.shape).astype(np.float32)


def measured(report):
    (found,) = [result for result in report.accuracy if result.runner == "candidate"]
    return found.logits


def test_divergences_are_those_of_the_distributions(judge):
    p, q = (scipy.special.softmax(x.astype(np.float64), axis=-1) for x in (LOGITS, noisy(0.3)))
    kl = scipy.special.rel_entr(p, q).sum(axis=-1)
    found = measured(judge(noisy(0.3)))
    assert (found.kl_mean, found.kl_max) == pytest.approx((kl.mean(), kl.max()))
    assert found.kl_p99 == pytest.approx(np.quantile(kl, 0.99))
    assert found.kl_max_at == (0, *np.unravel_index(kl.argmax(), kl.shape))


def test_log_probabilities_are_those_of_the_tokens_that_come_next(judge):
    p, q = (np.take_along_axis(log_softmax(x), NEXT[..., None], axis=-1)[..., 0] for x in (LOGITS, noisy(0.3)))
    found = measured(judge(noisy(0.3)))
    assert found.change_mean == pytest.approx((q - p).mean())
    assert (found.change_abs_mean, found.change_abs_max) == pytest.approx((abs(q - p).mean(), abs(q - p).max()))
    taught = np.s_[:, :-1]  # behind the last token there is none; its token is the reference's own
    assert (found.positions, found.taught) == (BATCH * LENGTH, BATCH * (LENGTH - 1))
    assert found.perplexity == pytest.approx(np.exp(-q[taught].mean()))
    assert found.perplexity_ratio == pytest.approx(np.exp((p - q)[taught].mean()))


def test_padding_is_not_measured(judge):
    mask = np.ones_like(IDS)
    mask[1, 6:] = 0
    broken = LOGITS.copy()
    broken[1, 6:] = -broken[1, 6:]
    found = measured(judge(broken, mask=mask))
    assert (found.kl_max, found.flips, found.top1, found.top5) == (0, 0, 1, 1)
    assert (found.positions, found.taught) == (BATCH * LENGTH - 4, BATCH * (LENGTH - 1) - 4)


def test_logits_of_the_last_positions_alone(judge):
    found = measured(judge(noisy(0.1)[:, -2:], LOGITS[:, -2:]))
    assert (found.positions, found.taught) == (2 * BATCH, BATCH)
    assert measured(judge(LOGITS[:, -2:], LOGITS[:, -2:])).perplexity < 2  # the tokens are those of the last positions


def test_a_flip_is_as_bad_as_the_lead_that_was_lost(judge):
    logits = LOGITS.copy()
    best = logits[2, 3].argmax()
    logits[2, 3, best] -= 20
    lead = np.sort(LOGITS[2, 3])[-1] - LOGITS[2, 3, np.argmax(logits[2, 3])]
    found = measured(judge(logits))
    assert (found.flips, found.top1) == (1, 1 - 1 / (BATCH * LENGTH))
    assert found.flip_margin == pytest.approx(lead, rel=1e-5)
    assert found.flip_margin_at == (0, 2, 3)
    assert found.flip_margin_expected is None  # INT8 has no expected error


def test_the_share_of_the_five_most_probable_tokens(judge):
    logits = LOGITS.copy()
    order = np.argsort(-LOGITS[0, 0])
    logits[0, 0, order[4]], logits[0, 0, order[5]] = LOGITS[0, 0, order[5]], LOGITS[0, 0, order[4]]
    found = measured(judge(logits))
    assert found.top5 == pytest.approx(1 - 0.2 / (BATCH * LENGTH))


def test_a_masked_vocabulary_has_no_part_in_the_divergence(judge):
    reference, candidate = LOGITS.copy(), LOGITS.copy()
    reference[..., 11], candidate[..., 11] = -np.inf, -1e9
    assert measured(judge(candidate, reference)).kl_max == pytest.approx(0, abs=1e-12)


def test_a_flip_is_held_against_the_error_that_rounding_makes():
    model = decoder(Size(layers=1))
    report = Comparator(
        model, [OnnxrtRunner(), EmulateRunner(format="bf16")], data_loader=DataLoader(samples=8), metric="logits"
    ).compare()
    found = report.accuracy[1].logits
    assert report.verdict == "pass"
    assert found.flips > 0
    assert 0 < found.flip_margin_expected < 3


# ---- what is decided ------------------------------------------------------------------------------------------------


def one_position(change: float) -> np.ndarray:
    changes = np.zeros((BATCH, LENGTH, 1))
    changes[1, 2] = change
    return shifted(changes)


UNSURE = np.where(TAUGHT, LOGITS - 5, LOGITS).astype(np.float32)


def others_shuffled() -> np.ndarray:
    """What thinks the next token as probable as `UNSURE` does, and the others probable in another order."""
    log_p = log_softmax(UNSURE)
    rest = np.where(TAUGHT, -np.inf, 3 * np.roll(LOGITS, 1, axis=0))
    rest = log_softmax(rest) + np.log(1 - np.exp(np.where(TAUGHT, log_p, -np.inf).max(axis=-1, keepdims=True)))
    return np.where(TAUGHT, log_p, rest).astype(np.float32)


HALVES = np.where(np.arange(LENGTH) % 2, 0.4, -0.4)[None, :, None] * np.ones((BATCH, 1, 1))


@pytest.mark.parametrize(
    ("candidate", "verdict", "reason"),
    [
        (noisy(0.05), "pass", None),
        (LOGITS + np.float32(100), "pass", None),  # softmax does not see that
        (shifted(-0.05), "pass", None),
        (shifted(-0.5), "fail", "the log-probability of the token changes by 0.5 nats in the mean"),
        (one_position(-5.0), "fail", "the KL divergence is .* nats or more in 1% of all positions"),
        (np.roll(LOGITS, 1, axis=-1), "fail", "the log-probability of the token changes by"),
        (np.where(TAUGHT, np.nan, LOGITS), "fail", "NaN"),
        (LOGITS[:, 1:], "fail", "shape"),
    ],
)
def test_verdicts(judge, candidate, verdict, reason):
    report = judge(candidate)
    assert report.verdict == verdict
    if reason is None:
        assert report.outputs[0].decided_by == "logits"
    else:
        assert re.search(reason, report.outputs[0].reason)


@pytest.mark.parametrize(("drop", "verdict"), [(None, "undecided"), (0.5, "pass")])
@pytest.mark.parametrize("arithmetic", [INT8, FP32])
def test_one_position_in_a_thousand_that_is_far_off_passes_nothing(function_runner, drop, verdict, arithmetic):
    reference = np.concatenate([LOGITS] * 40)
    candidate = reference.copy()
    candidate[7, -1, [0, 5]] += np.float32([-4.9, 4.9])  # the first is the most probable one
    runners = [
        function_runner(function=lambda feed: {"logits": reference}, label="reference", rank=0),
        function_runner(
            function=lambda feed: {"logits": candidate}, label="candidate", rank=1, number_format=arithmetic
        ),
    ]
    ids = np.concatenate([IDS] * 40)
    feed = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    rules = {"tolerances": {"logits": (0, 5)}} if arithmetic is FP32 else {}
    comparator = Comparator(parsed(MODEL), runners, data_loader=[feed], metric="logits", metric_drop=drop, **rules)
    report = comparator.compare()
    assert report.outputs[0].verdict == verdict
    if verdict == "undecided":
        assert "at position 9 of row 7 in sample 0" in report.outputs[0].reason
        assert "no single position may be off by more than 2; look at" in report.outputs[0].reason


def test_a_divergence_that_no_token_shows_fails(judge):
    report = judge(others_shuffled(), UNSURE)
    assert measured(report).perplexity_ratio == pytest.approx(1)
    assert re.search("the mean KL divergence is .* nats; --metric-drop 0.1 allows 0.1", report.outputs[0].reason)


def test_right_tokens_with_other_probabilities_fail_though_no_decision_changes(judge):
    report = judge(shifted(-0.5))
    found = measured(report)
    assert (found.flips, found.top1) == (0, 1.0)
    assert found.change_abs_mean == pytest.approx(0.5, rel=1e-4)
    assert report.verdict == "fail"


def test_changes_that_cancel_out_fail_too(judge):
    flat = np.full_like(LOGITS, 2)  # every token equally probable: a tenth of a nat of divergence is far away
    log_p = np.log(1 / VOCABULARY) + HALVES
    others = np.log((1 - np.exp(log_p)) / (VOCABULARY - 1))
    report = judge(np.where(TAUGHT, log_p, others).astype(np.float32), flat)
    found = measured(report)
    assert report.verdict == "fail"
    assert found.kl_mean < 0.1
    assert "changes by" in report.outputs[0].reason


@pytest.mark.parametrize(("drop", "verdict"), [(0.6, "pass"), (0.4, "fail")])
def test_what_is_allowed_is_the_users_to_say(judge, drop, verdict):
    assert judge(shifted(-0.5), metric_drop=drop).verdict == verdict


@pytest.mark.parametrize("candidate", [LOGITS, 0 * LOGITS])
def test_a_drop_that_zeros_keep_decides_nothing(judge, candidate):
    (output,) = judge(candidate, metric_drop=100).outputs
    assert output.verdict == "undecided"
    assert "zeros in the place of the logits, every token equally probable, would pass as well" in output.reason


@pytest.mark.parametrize(("change", "verdict"), [(-0.01, "pass"), (-0.5, "fail")])
def test_what_is_lost_fails_though_a_tolerance_is_kept(judge, change, verdict):
    reference = log_softmax(LOGITS).astype(np.float32)
    assert judge(shifted(change), reference, arithmetic=FP32, tolerances={"logits": (0, 5)}).verdict == verdict


def test_int8_is_decided_on_a_decoder_and_so_are_its_caches():
    runners = [OnnxrtRunner(), EmulateRunner(format="int8")]
    report = Comparator(decoder(), runners, metric="logits").compare()
    assert (report.verdict, {output.decided_by for output in report.outputs}) == ("pass", {"logits"})


def test_a_cache_that_is_far_off_is_not_passed_by_its_logits(function_runner):
    model = decoder(Size(layers=1))

    def candidate(feed):
        with OnnxrtRunner().session(Comparator(model, [OnnxrtRunner(), OnnxrtRunner()]).prepare().reference.model) as s:
            outputs = s.infer(feed)
        return {**outputs, "present.0.key": 1.3 * outputs["present.0.key"], "logits": outputs["logits"] + 0.01}

    wrong = function_runner(function=candidate, label="candidate", rank=99, number_format=INT8)
    report = Comparator(model, [OnnxrtRunner(), wrong], metric="logits").compare()
    verdicts = {output.tensor: output.verdict for output in report.outputs}
    assert verdicts == {"logits": "pass", "present.0.key": "undecided", "present.0.value": "pass"}
    assert report.verdict == "undecided"


# ---- what is refused ------------------------------------------------------------------------------------------------


def test_labels_are_refused():
    with pytest.raises(UsageError, match="reads no labels"):
        criterion(Rules(metric="logits", labels=np.zeros(3, int)))


@pytest.mark.parametrize(
    ("model", "rules", "message"),
    [
        ("g (float[N, C] x) => (float[N] y) { y = ReduceSum<keepdims = 0>(x) }", {}, "output y .* is none"),
        ("g (float[N, C] x) => (float[N, C] y, float[N, C] z) { y = Neg(x) z = Abs(x) }", {}, "choose one with"),
        ("g (float[N, C] x) => (float[N, C] y) { y = Neg(x) }", {"metric_output": "w"}, "w: no such output"),
        ("g (float[N, C, 8, 8] x) => (float[N, C, 8, 8] y) { y = Neg(x) }", {}, "output y .* is none"),
        ("g (float[N, C] x) => (float[N, C] y) { y = Softmax(x) }", {}, "holds probabilities .Softmax makes it"),
        ("g (float[N, C] x) => (float[N, C] y) { s = Sigmoid(x) y = Identity(s) }", {}, "Sigmoid makes it"),
        (
            "g (float[N, 3, 8] x, float[4, 3, 1] w) => (float[N, 4, 8] y) { c = Conv(x, w) y = Relu(c) }",
            {},
            "'y' is one of places .Conv makes it",
        ),
    ],
)
def test_outputs_that_are_no_logits_are_refused(model, rules, message):
    with pytest.raises(UsageError, match=message):
        Comparator(parsed(model), [OnnxrtRunner(), OnnxrtRunner()], metric="logits", **rules).compare()


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        (scipy.special.softmax(LOGITS, axis=-1), "its rows add up to 1"),
        (scipy.special.expit(LOGITS), "all its numbers are between 0 and 1"),
    ],
)
def test_probabilities_of_a_program_are_refused(judge, reference, message):
    with pytest.raises(UsageError, match=message):
        judge(reference, reference)


def test_log_probabilities_are_logits(judge):
    assert judge(log_softmax(noisy(0.01)), log_softmax(LOGITS)).verdict == "pass"
    model = "g (float[N, C] x) => (float[N, C] y) { y = LogSoftmax(x) }"
    assert Comparator(parsed(model), [OnnxrtRunner(), OnnxrtRunner()], metric="logits").compare().verdict == "pass"


@pytest.mark.parametrize(("shift", "told"), [(1, True), (0.1, False)])
def test_what_is_added_to_all_logits_of_a_position_is_told(judge, shift, told):
    report = judge(LOGITS + np.float32(shift))
    assert report.verdict == "pass"
    assert any(notice.code == "logits-shifted" for notice in report.notices) == told


# ---- what is shown --------------------------------------------------------------------------------------------------


def test_the_table_and_the_sentence_on_flips(tmp_path, capsys):
    onnx.save(decoder(), tmp_path / "decoder.onnx")
    command = [str(tmp_path / "decoder.onnx"), "--onnxrt", "--emulate", "int8", "--metric", "logits"]
    assert main(command) == 0
    told = capsys.readouterr().out
    assert "logits, in nats" in told
    assert "positions have another most probable token" in told
    assert "by logits" in told
