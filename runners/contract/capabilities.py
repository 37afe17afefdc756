"""What the sessions of a runner can do, and what they need."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Capabilities:
    """What the sessions of a runner can do, and what they need. The defaults are those of a runtime that opens ONNX.

    Attributes:
        any_model: A session runs the model that it is opened on. False: the runner has a network of its own, and runs
            that one whatever model it is given.
        pieces: A session can be opened on a piece of an ONNX graph.
        inner_tensors: ``infer`` has a parameter ``fetch``, and returns inner tensors of the graph that are in it. Where
            it does not, and pieces can be opened, a second session is opened on the graph with these tensors among its
            outputs.
        feeds_inner_tensors: ``infer`` takes inner tensors in ``feed``, in place of what would compute them.
        opens_ahead: A session can be opened before the shapes of its inputs are known, and in a thread of its own.
        reads_engines: It runs serialized engines (`Model.engine`); others run the model that the engine was built from.
        computes: It computes what it gives. False: it was recorded, and running it twice or timing it tells nothing.
        builds_for_shapes: A session runs those shapes alone that its workload named when it was opened.
        keeps_inputs: A session on a piece takes values of some inputs alone once all of them were fed: the others keep
            theirs.
        builds_apart: What a session runs is built first, and may be built in another process (`Building.build`).
        output_files: Fields of the configuration that name a file to write: one for each runner.
        caches: Fields that name a file which makes opening faster and changes no result; it is read and written.
    """

    any_model: bool = True
    pieces: bool = True
    inner_tensors: bool = False
    feeds_inner_tensors: bool = False
    opens_ahead: bool = False
    reads_engines: bool = False
    computes: bool = True
    builds_for_shapes: bool = False
    keeps_inputs: bool = False
    builds_apart: bool = False
    output_files: tuple[str, ...] = ()
    caches: tuple[str, ...] = ()

    @property
    def runs_parts(self) -> bool:
        """Whether what lies between tensors can be run alone, on values that are given."""
        return self.pieces or (self.inner_tensors and self.feeds_inner_tensors)
