"""What a language model's logits are worth beside the reference's: plain data, as the report holds them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LogitsResult:
    """Distributions over the vocabulary, position by position, each behind the same tokens on both sides.

    Divergences and log-probabilities are in nats. Null: not finite, or there is none.

    Attributes:
        positions: Positions that were compared: all that are no padding.
        taught: Those of them behind which the data have a next token; of the others, the token is the reference's most
            probable one.
        kl_mean, kl_p99, kl_max: Kullback-Leibler divergence of the candidate's distribution from the reference's: mean,
            99th percentile and greatest.
        kl_max_at: Sample, row and position of the greatest.
        change_mean: Mean change of the log-probability of the token; negative: the candidate thinks it less probable.
        change_abs_mean, change_abs_max: Mean and greatest magnitude of that change.
        top1, top5: Share of positions with the same most probable token; mean share of the five most probable ones that
            both have in common.
        perplexity: The candidate's perplexity of the taught tokens.
        perplexity_ratio: That over the reference's.
        flips: Positions at which another token is the most probable.
        flip_margin: The largest lead, in logits, that the reference's token had over the candidate's at one of them.
        flip_margin_at: Sample, row and position of that one.
        flip_margin_expected: That lead over the standard deviation that rounding gives to the difference of two logits;
            null where no error is expected (INT8), or none was measured.
    """

    positions: int
    taught: int
    kl_mean: float | None
    kl_p99: float | None
    kl_max: float | None
    kl_max_at: tuple[int, ...] | None
    change_mean: float | None
    change_abs_mean: float | None
    change_abs_max: float | None
    top1: float
    top5: float
    perplexity: float | None
    perplexity_ratio: float | None
    flips: int
    flip_margin: float | None = None
    flip_margin_at: tuple[int, ...] | None = None
    flip_margin_expected: float | None = None
