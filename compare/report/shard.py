"""What the report on a share of the samples holds besides, so that the report on all of them can be made of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class ShardRunner:
    """What one runner gave for a share of the samples.

    Attributes:
        name: What the report calls it.
        samples: Samples of the share that it finished.
        in_pieces: Whether its model was run in pieces, since the weights of all sides do not fit in memory.
        fp16_accumulation: Names of nodes whose products add up in FP16 for certain.
        idle: Why nothing was done that was asked for (see `SessionInfo`); empty where something was.
        not_run: Why it could not be run, though the runtime took the network; empty where it was.
        outputs: Of each sample that it finished, by tensor: ``array``, an ``.npy`` file in Base64, and ``dtype``.
    """

    name: str
    samples: int
    in_pieces: bool = False
    fp16_accumulation: tuple[str, ...] = ()
    idle: str = ""
    not_run: str = ""
    outputs: tuple[Mapping[str, Mapping[str, str]], ...] = ()


@dataclass(frozen=True)
class Shard:
    """A share of the samples: those whose number, counted from 0, leaves ``index - 1`` when it is divided by ``count``.

    Attributes:
        index: Which share, from 1.
        count: How many there are.
        total: Samples of all shares together.
        candidates: Names of those whose outputs are to be compared.
        runners: What each runner gave.
        notices: What was to be said of the run itself, as ``code``, ``subject`` and ``text``.
        networks: Digests of the networks of all sides, weights in other files included.
        calibration: Digest of the samples that integer formats were calibrated on; None: those that are compared.
    """

    index: int
    count: int
    total: int
    candidates: tuple[str, ...] = ()
    runners: tuple[ShardRunner, ...] = ()
    notices: tuple[Mapping[str, str], ...] = ()
    networks: tuple[str, ...] = ()
    calibration: str | None = None
