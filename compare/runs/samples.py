"""The samples of a comparison: bound to the sides' models, checked, and handed out so that nobody can change them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from ...graph.errors import DataError, UsageError
from ...graph.specs import is_float
from ...runners.contract.session import Session
from ...runners.contract.workload import ShapeRange

if TYPE_CHECKING:
    from ...dataloaders.base import Sample, Samples, Source
    from ...runners.contract.workload import Feed
    from ..sides import Sides

Data: TypeAlias = "Source | Iterable[Mapping[str, np.ndarray]]"
Shapes: TypeAlias = "Mapping[str, ShapeRange]"


def feed_of(session: Session, sample: Feed) -> dict[str, np.ndarray]:
    """The part of a sample that a session takes."""
    wanted = {spec.name for spec in session.inputs}
    return {name: array for name, array in sample.items() if name in wanted}


def checked(samples: Samples) -> Iterator[dict[str, np.ndarray]]:
    """The samples, read-only."""
    for sample in samples:
        yield read_only(sample)


def calibrating(samples: Samples) -> Iterator[dict[str, np.ndarray]]:
    """Calibration data, read-only.

    Raises:
        DataError: A sample has no rows, or holds NaN: no range can be found on it.
    """
    for number, sample in enumerate(checked(samples)):
        rows = [array.shape[0] for array in sample.values() if array.ndim]
        if rows and not any(rows):
            raise DataError(f"calibration data, {samples.description}: sample {number} has no rows.")
        for name, array in sample.items():
            nan = int(np.count_nonzero(np.isnan(array))) if is_float(array.dtype) else 0
            if nan:
                what = f"{nan:,} of {array.size:,} values of {name!r} are NaN in sample {number}"
                raise DataError(f"calibration data, {samples.description}: {what}.")
        yield sample


def numbered(samples: Samples, wanted: Collection[int]) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """Some samples, with their numbers."""
    for number, sample in enumerate(checked(samples)):
        if number > max(wanted):
            return
        if number in wanted:
            yield number, sample


def read_only(sample: Sample) -> dict[str, np.ndarray]:
    """A sample that no runner can change for the next one."""
    result = {}
    for name, value in sample.items():
        array = np.asarray(value)
        if array.flags.writeable:
            array = array.view()
            array.flags.writeable = False
        result[name] = array
    return result


def bind(data: Data | None, sides: Sides, shape_sets: Sequence[Shapes]) -> Samples:
    """The samples for the reference's model, random ones if no data are given.

    Random samples have the usual shape of every range, and then the smallest and the largest ones: deployment has them.

    Args:
        data: What the user gave.
        sides: Who will read them.
        shape_sets: Shape ranges of inputs, one set for each optimization profile.

    Raises:
        DataError: The data do not fit the model, or there are none.
    """
    from ...dataloaders import DataLoader, as_source
    from ...dataloaders.base import Source

    model = sides.reference.model
    if data is None:
        data = DataLoader()
    if isinstance(data, DataLoader):
        first, *others = [{name: shape.opt for name, shape in shapes.items()} for shapes in shape_sets]
        more = data.more_shapes or tuple(others)
        built = {} if more else _built_for(sides)
        fixed = _fixed_by_candidates(sides)
        ends = () if data.more_shapes else [{**fixed, **end, **data.shapes} for end in _ends(shape_sets)]
        data = replace(data, shapes={**built, **fixed, **first, **data.shapes}, more_shapes=more, ends=ends)
    source = data if isinstance(data, Source) else as_source(data)
    samples = source.bind(model)
    if not len(samples):
        raise DataError("the data hold no sample: nothing can be compared.")
    return samples


def _ends(shape_sets: Sequence[Shapes]) -> Iterator[dict[str, tuple[int, ...]]]:
    """The smallest and the largest shapes of each set in which they are not the usual ones."""
    for shapes in shape_sets:
        usual = {name: shape.opt for name, shape in shapes.items()}
        for end in ({n: s.min for n, s in shapes.items()}, {n: s.max for n, s in shapes.items()}):
            if end != usual:
                yield end


def _built_for(sides: Sides) -> dict[str, tuple[int, ...]]:
    """The shapes that the first engine among the sides was made fastest for."""
    for side in sides.all:
        for shapes in side.runner.engine_profiles(side.model)[:1]:
            return {name: shape.opt for name, shape in shapes.items()}
    return {}


def _fixed_by_candidates(sides: Sides) -> dict[str, tuple[int | None, ...]]:
    """Dimensions that the reference's model leaves open and a candidate's does not."""
    found: dict[str, list[int | None]] = {}
    open_in_reference = {
        spec.name: [not isinstance(d, int) for d in spec.shape]
        for spec in sides.reference.model.inputs
        if spec.shape is not None
    }
    for side in sides.candidates:
        if side.model.same_network(sides.reference.model):
            continue
        for spec in side.model.inputs:
            for axis, dim in enumerate(spec.shape or ()):
                if isinstance(dim, int) and open_in_reference.get(spec.name, [])[axis : axis + 1] == [True]:
                    found.setdefault(spec.name, [None] * len(spec.shape or ()))[axis] = dim
    return {name: tuple(dims) for name, dims in found.items()}


def check_calibrated(sides: Sides) -> None:
    """Refuses calibration data where nobody would read them."""
    if not any(p.runner.arithmetic.is_integer or p.runner.arithmetic.name == "e4m3" for p in sides.all):
        raise UsageError("calibration data are for INT8 and FP8, and no runner computes in either.")


def check_shapes(samples: Samples, shape_sets: Sequence[Shapes]) -> None:
    """Refuses shapes that the data do not have: what runs is what the data hold.

    Args:
        samples: The data, of which the first sample is looked at.
        shape_sets: Shape ranges that the user gave.

    Raises:
        UsageError: An input has a shape outside of each range that was given for it.
    """
    if not shape_sets or not samples.representative:
        return
    for name, array in next(iter(checked(samples))).items():
        ranges = [shapes[name] for shapes in shape_sets if name in shapes]
        if ranges and not any(_within(array.shape, one) for one in ranges):
            found, asked = ("x".join(map(str, shape)) for shape in (array.shape, ranges[0].opt))
            where = f"{name!r} is {found} in {samples.description}"
            raise UsageError(f"--shape {name}:{asked}: {where}, and --data decides what is run: leave out --shape.")


def _within(shape: Sequence[int], allowed: ShapeRange) -> bool:
    return len(shape) == len(allowed.opt) and all(
        low <= dim <= high for low, dim, high in zip(allowed.min, shape, allowed.max, strict=True)
    )


def check_labels(samples: Samples) -> None:
    """Refuses labels of random data, which have none.

    Raises:
        UsageError: The samples are random.
    """
    if not samples.representative:
        raise UsageError(f"labels belong to real inputs, not to {samples.description}: name those with --data.")
