"""A Python file with a function ``load_data()`` that returns, or yields, dicts of arrays by input name."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..graph.errors import DataError, LayerdiffError
from ..graph.foreign import contained
from ..graph.interrupts import uninterrupted
from .base import Samples, Source
from .iterable import Iterated, describe

if TYPE_CHECKING:
    from ..graph.model import Model

READS = "a .py file with load_data()"
FUNCTION = "load_data"


def opens(path: Path) -> Source | None:
    """A source if ``path`` is a Python file."""
    return Script(path) if path.suffix == ".py" and path.is_file() else None


@dataclass(frozen=True)
class Script(Source):
    """Samples from ``load_data()`` of a Python file. It is called at every pass and must give the same each time.

    Attributes:
        path: The file. Modules beside it can be imported by it.
        most: How many samples to ask for; None: all.
    """

    path: Path
    most: int | None = None

    def limited(self, most: int) -> Source:
        """See `Source.limited`."""
        return replace(self, most=most)

    def bind(self, model: Model) -> Samples:
        """Runs the file and checks every sample in one pass.

        Raises:
            DataError: The file has no ``load_data``, it fails, or what it gives does not fit the model.
        """
        return Iterated(self._function(), str(self.path), self.most).bind(model)

    def _function(self) -> Callable[[], Any]:
        path = Path(self.path).resolve()
        spec = importlib.util.spec_from_file_location(f"_layerdiff_data_{path.stem}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.path.insert(0, str(path.parent))
        try:
            with contained(), uninterrupted():
                spec.loader.exec_module(module)
        except LayerdiffError:
            raise
        except Exception as error:
            line = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
            text = f"SyntaxError: {error.msg}{line}" if isinstance(error, SyntaxError) else describe(error)
            raise DataError(f"{self.path}: {text}") from error
        finally:
            sys.path.remove(str(path.parent))
        function = getattr(module, FUNCTION, None)
        if not callable(function):
            raise DataError(f"{self.path}: has no function {FUNCTION}().")
        return function  # type: ignore[no-any-return]
