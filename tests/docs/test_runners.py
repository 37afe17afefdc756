"""docs/runners.md builds a runner in twenty lines."""

import re

from support.paths import ROOT


def test_a_runner_of_ones_own_takes_twenty_lines():
    page = (ROOT / "docs" / "runners.md").read_text("utf-8")
    (code,) = re.findall(r"^cat > own.py <<'END'\n(.*?)^END$", page, re.MULTILINE | re.DOTALL)
    assert len(code.strip().splitlines()) <= 20
