"""Memory that localizing uses and gives back."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from layerdiff.compare.runs.memory import reused


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_that_was_freed_is_kept_while_localizing_and_given_back_behind():
    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    before = resident()
    with reused(1, 2):
        for _ in range(3):
            arrays = [np.ones(1 << 22, np.float32) for _ in range(8)]  # 128 MiB
            del arrays
    assert resident() < before + (32 << 20)
