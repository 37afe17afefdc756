"""Do the inputs and outputs of two files correspond? Where they do not, the options that might make them.

Nothing is matched by guess: names have to be the same, or the user has to say which stands for which. A refusal
proposes the options, ready to paste: pairs of the same dtype and shape, names most alike first, then by position.
"""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from typing import TYPE_CHECKING

from ..graph.errors import UsageError
from ..graph.interface import Interface, adapted
from ..graph.pairing.cast_pairs import cast_pairs
from ..graph.specs import is_float
from . import notices
from .sides import Side, Sides, one_a_file, other_file

if TYPE_CHECKING:
    from ..graph.model import Model
    from ..graph.specs import Dim, TensorSpec
    from .comparison import Rules
    from .report.model import Notice

ALIKE = 0.5
"""How alike two names are from which on that says something."""
MAX_RANK = 6
"""Beyond it (720 orders) nobody transposes."""


def in_the_references_words(sides: Sides, rules: Rules) -> tuple[Sides, list[Notice]]:
    """The sides, with the inputs and outputs of other files under the names and in the layouts of the reference's.

    Args:
        sides: Who is compared.
        rules: Which names stand for which.

    Raises:
        UsageError: The rules name what is not there, or there is no second file.
    """
    asked = Interface(rules.map_inputs, rules.map_outputs, rules.transpose_inputs)
    others = [side for side in one_a_file(sides.candidates) if other_file(side, sides.reference)]
    if asked:
        _check_named(asked, sides.reference.model, [side.model for side in others])
        sides = _adapted(sides, asked)
    sides, cast = _cast(sides)
    others = [side for side in one_a_file(sides.candidates) if other_file(side, sides.reference)]
    pairs = [(sides.reference.model, side.model) for side in others]
    told = (t for pair in pairs for t in (*_outputs_unmatched(*pair), *_layouts_unlike(*pair), *_cast_and_back(*pair)))
    return sides, [*cast, *told]


def _check_named(asked: Interface, reference: Model, others: Sequence[Model]) -> None:
    if not others:
        options = "--map-input, --map-output and --transpose-input"
        raise UsageError(f"{options} are about a second file, and there is no other one than {reference.label}.")
    for flag, names, specs in (
        ("--map-input", asked.inputs, reference.inputs),
        ("--map-output", asked.outputs, reference.outputs),
        ("--transpose-input", asked.transposed, reference.inputs),
    ):
        known = [spec.name for spec in specs]
        for name in names:
            if name not in known:
                kind = "output" if flag == "--map-output" else "input"
                raise UsageError(f"{flag} {name}: {reference.source} has no such {kind}; it has: {', '.join(known)}.")
    for model in others:
        if model.engine is not None:
            raise UsageError(f"{model.label}: the inputs and outputs of an engine keep their names and layouts.")


def _adapted(sides: Sides, asked: Interface) -> Sides:
    """The candidates that run another file, behind the interface; one model for all that share one."""
    done: dict[int, Model] = {}

    def changed(side: Side) -> Side:
        if not other_file(side, sides.reference):
            return side
        if id(side.model) not in done:
            done[id(side.model)] = adapted(side.model, asked)
        return replace(side, model=done[id(side.model)])

    return replace(sides, candidates=tuple(map(changed, sides.candidates)))


def _cast(sides: Sides) -> tuple[Sides, list[Notice]]:
    """The candidates whose inputs are of another floating type than the reference's, behind casts; and what to say."""
    given = {spec.name: spec for spec in sides.reference.model.inputs}
    done: dict[int, Model] = {}
    told: list[Notice] = []

    def changed(side: Side) -> Side:
        if id(side.model) not in done:
            casts = {
                spec.name: given[spec.name].dtype
                for spec in side.model.inputs
                if spec.name in given
                and spec.dtype != given[spec.name].dtype
                and is_float(spec.dtype)
                and is_float(given[spec.name].dtype)
            }
            if not casts or side.model.engine is not None:
                done[id(side.model)] = side.model
            else:
                types = {spec.name: spec.dtype.name for spec in side.model.inputs}
                told.extend(notices.input_cast(side.model.source, n, d.name, types[n]) for n, d in casts.items())
                done[id(side.model)] = adapted(side.model, Interface(cast=casts))
        return replace(side, model=done[id(side.model)])

    return replace(sides, candidates=tuple(map(changed, sides.candidates))), told


def _cast_and_back(reference: Model, candidate: Model) -> Iterator[Notice]:
    """What a second file casts to FP16 or BF16 and back."""
    found = cast_pairs(reference.index, candidate.index)
    if found:
        makers, formats = ({p.maker: None for p in found}, {str(p.format): None for p in found})
        yield notices.cast_and_back(candidate.source, [*makers], [*formats])


def in_words(rules: Rules) -> Iterator[str]:
    """What the user said of a second file's inputs and outputs, as sentences."""
    for kind, names in (("input", rules.map_inputs), ("output", rules.map_outputs)):
        for name, other in names.items():
            yield f"{kind} {name!r} is {other!r} in the second file."
    for name, axes in rules.transpose_inputs.items():
        yield f"input {name!r} has another layout in the second file, which axes {_listed(axes)} turn into the first's."


def check_inputs(
    reference: Model, candidate: Model, transposed: Mapping[str, Sequence[int]] | None = None
) -> list[str]:
    """Makes sure that samples for the reference's model fit the candidate's.

    Args:
        reference, candidate: The models; the candidate's as it is after ``transposed``.
        transposed: What the user said of its layouts: input -> axes.

    Returns:
        Inputs of the reference's model that the candidate's does not take.

    Raises:
        UsageError: It wants an input that the reference's model does not have, or of another dtype or shape. The second
            line proposes options, where there are any that may help.
    """
    known = {spec.name: spec for spec in reference.inputs}
    wanted = {spec.name: spec for spec in candidate.inputs}
    clashing = [name for name, spec in wanted.items() if name not in known or not _fits(known[name], spec)]
    if clashing:
        turned = transposed or {}
        what = _clash(reference, candidate, wanted[clashing[0]], wanted[clashing[0]].name in turned)
        free = [s for s in reference.inputs if s.name not in wanted]
        pairs = [(known[n], wanted[n]) for n in clashing if n in known]
        pairs += likely_pairs(free, [wanted[n] for n in clashing if n not in known])
        options = " ".join(filter(None, (_options(*pair, turned) for pair in pairs)))
        raise UsageError(what + (f"\nIf they are the same: {options}" if options else ""))
    return [name for name in known if name not in wanted]


def _clash(reference: Model, candidate: Model, spec: TensorSpec, asked: bool) -> str:
    mine = next((s for s in reference.inputs if s.name == spec.name), None)
    if mine is None:
        names = ", ".join(s.name for s in reference.inputs) or "none"
        return f"{candidate.source}: input {spec.name!r} is not an input of {reference.source}, which has: {names}."
    source = f"{candidate.source}, as --transpose-input turns it," if asked else candidate.source
    turned = mine.dtype == spec.dtype and layout(mine.shape, spec.shape) is not None
    order = ", the same axes in another order" if turned else ""
    return f"{source} takes {spec}, but {reference.source} takes {mine}{order}."


def _outputs_unmatched(reference: Model, candidate: Model) -> Iterator[Notice]:
    missing = _without(reference.outputs, candidate.outputs)
    extra = _without(candidate.outputs, reference.outputs)
    pairs = likely_pairs(missing, extra, layouts=False)
    if pairs:
        options = " ".join(_map_option("--map-output", *pair) for pair in pairs)
        names = [mine.name for mine, _ in pairs], [theirs.name for _, theirs in pairs]
        yield notices.outputs_unmatched(candidate.source, *names, options)


def _layouts_unlike(reference: Model, candidate: Model) -> Iterator[Notice]:
    theirs = {spec.name: spec for spec in candidate.inputs}
    for spec in reference.inputs:
        if spec.name in theirs and _seems_turned(spec, theirs[spec.name]):
            option = _transpose_option(spec, theirs[spec.name])
            yield notices.layout_unlike(candidate.source, str(theirs[spec.name]), reference.source, str(spec), option)


def _without(specs: Sequence[TensorSpec], others: Sequence[TensorSpec]) -> list[TensorSpec]:
    names = {spec.name for spec in others}
    return [spec for spec in specs if spec.name not in names]


# -- which is likely to be which


@dataclass(frozen=True)
class _Likeness:
    """How well two tensors fit each other; the less, the better."""

    transposed: bool
    unlike: float
    apart: int

    @property
    def key(self) -> tuple[bool, float, int]:
        return self.transposed, self.unlike, self.apart


def likely_pairs(
    reference: Sequence[TensorSpec], candidate: Sequence[TensorSpec], layouts: bool = True
) -> list[tuple[TensorSpec, TensorSpec]]:
    """Tensors that may be the same under two names: of one dtype and shape, names most alike first, then by position.

    Args:
        reference, candidate: Tensors that have no counterpart of the same name.
        layouts: Whether the same shape in another order will do, where there is nothing better.

    Returns:
        Pairs in the order of the reference's; no tensor stands in two of them.
    """
    fitting = [
        (found.key, i, j)
        for i, mine in enumerate(reference)
        for j, theirs in enumerate(candidate)
        if (found := _likeness(mine, theirs, abs(i - j), layouts)) is not None
    ]
    taken: dict[int, int] = {}
    for _, i, j in sorted(fitting):
        if i not in taken and j not in taken.values():
            taken[i] = j
    return [(reference[i], candidate[j]) for i, j in sorted(taken.items())]


def _likeness(mine: TensorSpec, theirs: TensorSpec, apart: int, layouts: bool) -> _Likeness | None:
    if is_float(mine.dtype) != is_float(theirs.dtype) or (layouts and mine.dtype != theirs.dtype):
        return None
    fits = _shapes_fit(mine.shape, theirs.shape)
    if not fits and not (layouts and layout(mine.shape, theirs.shape)):
        return None
    alike = difflib.SequenceMatcher(None, mine.name.lower(), theirs.name.lower(), autojunk=False).ratio()
    return _Likeness(not fits, 1 - round(alike, 1) if alike >= ALIKE else 1, apart)


def layout(reference: Sequence[Dim] | None, candidate: Sequence[Dim] | None) -> tuple[int, ...] | None:
    """The likeliest order of axes, other than the given one, that gives the candidate's shape the reference's.

    Likelier than others is one that leaves open what is open in both, and one that moves a single axis (NCHW to NHWC).

    Returns:
        The axes; None where no order does it.
    """
    if reference is None or candidate is None or len(reference) != len(candidate) or len(reference) > MAX_RANK:
        return None
    found = []
    for axes in permutations(range(len(candidate))):
        turned = [candidate[a] for a in axes]
        moved = sum(a != i for i, a in enumerate(axes))
        if moved and _shapes_fit(reference, turned):
            found.append((_half_open(reference, turned), not _moves_one(axes), moved, axes))
    return min(found)[-1] if found else None


def _half_open(mine: Sequence[Dim], theirs: Sequence[Dim]) -> int:
    """Dimensions that one of the two leaves open, or calls otherwise."""
    return sum(a != b for a, b in zip(mine, theirs, strict=True))


def _seems_turned(mine: TensorSpec, theirs: TensorSpec) -> bool:
    """Whether shapes with open dimensions, which fit as they stand, fit better in another order: NHWx3 and Nx3HW."""
    if mine.shape is None or theirs.shape is None or mine.dtype != theirs.dtype:
        return False
    axes = layout(mine.shape, theirs.shape)
    fixed = [sorted(d for d in spec.shape or () if isinstance(d, int)) for spec in (mine, theirs)]
    if axes is None or fixed[0] != fixed[1]:
        return False
    turned = [theirs.shape[a] for a in axes]
    crossed = [isinstance(a, int) != isinstance(b, int) for a, b in zip(mine.shape, theirs.shape, strict=True)]
    straight = [isinstance(a, int) == isinstance(b, int) for a, b in zip(mine.shape, turned, strict=True)]
    return any(crossed) and all(straight)


def _moves_one(axes: Sequence[int]) -> bool:
    """Whether the others keep their order once one axis is taken out."""
    rest = ([a for a in axes if a != moved] for moved in axes)
    return any(others == sorted(others) for others in rest)


def _fits(mine: TensorSpec, theirs: TensorSpec) -> bool:
    return mine.dtype == theirs.dtype and _shapes_fit(mine.shape, theirs.shape)


def _shapes_fit(mine: Sequence[Dim] | None, theirs: Sequence[Dim] | None) -> bool:
    """Whether two shapes can be one; unknown dimensions can be anything."""
    if mine is None or theirs is None:
        return True
    return len(mine) == len(theirs) and all(
        not isinstance(a, int) or not isinstance(b, int) or a == b for a, b in zip(mine, theirs, strict=True)
    )


# -- options, ready to paste


def _options(mine: TensorSpec, theirs: TensorSpec, transposed: Mapping[str, Sequence[int]]) -> str:
    """What says that an input of the second file is one of the first; empty where nothing would help."""
    words = [] if mine.name == theirs.name else [_map_option("--map-input", mine, theirs)]
    if not _shapes_fit(mine.shape, theirs.shape) and mine.dtype == theirs.dtype:
        words.append(_transpose_option(mine, theirs, transposed.get(mine.name)))
    return " ".join(filter(None, words))


def _transpose_option(mine: TensorSpec, theirs: TensorSpec, before: Sequence[int] | None = None) -> str:
    """What gives the second file's input the layout of the first's, in place of what was asked for ``before``."""
    axes = layout(mine.shape, theirs.shape)
    if axes is not None and before is not None:
        axes = tuple(before[a] for a in axes)
    return "" if axes is None else f"--transpose-input {shlex.quote(f'{mine.name}:{_listed(axes)}')}"


def _map_option(flag: str, mine: TensorSpec, theirs: TensorSpec) -> str:
    return _named_option(flag, mine.name, theirs.name)


def _named_option(flag: str, name: str, other: str) -> str:
    return f"{flag} {shlex.quote(f'{name}={other}')}"


def map_outputs(held: Mapping[str, str]) -> str:
    """The options that say which output of the second file is which of the first.

    Args:
        held: Outputs of the second file -> the first file's.
    """
    return " ".join(_named_option("--map-output", other, name) for name, other in held.items())


def _listed(axes: Sequence[int]) -> str:
    return ",".join(map(str, axes))
