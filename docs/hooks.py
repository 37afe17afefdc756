"""What MkDocs has to know of these pages, which are read on a code host, too.

There, a link to a file outside ``docs/`` opens that file; on the site, its path is shown. The word behind a fence's
language (``setup``, ``gpu``) is for the tests that run the blocks.
"""

from __future__ import annotations

import re
from typing import Any

_FENCE = re.compile(r"^( *```(?:sh|python|text|toml|yaml)) \w+$", re.MULTILINE)
_OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./([^)]+)\)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The page as MkDocs takes it."""
    return _OUTSIDE.sub(r"\1 (`\2`)", _FENCE.sub(r"\1", markdown))
