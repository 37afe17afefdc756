"""What is known of operators: one table for everybody, a row for each group of operators of which the same is true.

The sets below the table are what others ask for: each is derived from it, or its docstring says what it is for. A new
operator of ONNX is one more name in a row; ``tests/test_operators.py`` fails until it is there.

The table knows operators of ONNX and of ONNX Runtime's own domain by their names alone, since those that share a name
do the same. `operator` gives the name under which the table knows a node.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass

import onnx

STANDARD_DOMAINS = frozenset({"", "ai.onnx"})
"""The two names of ONNX's main domain."""

CONTRIB_DOMAIN = "com.microsoft"
"""Where ONNX Runtime has operators of its own."""

ML_DOMAIN = "ai.onnx.ml"
"""Trees, encoders and their kin, which no accelerator runs."""

_TRAINING_DOMAINS = frozenset({"ai.onnx.preview.training", "ai.onnx.training"})


class Kind(enum.Enum):
    """How an operator makes its results. Each operator is of one kind."""

    COPY = "the same tensor"
    RESHAPE = "the same elements in the same order, in another shape"
    PERMUTATION = "each element once, in another place"
    PICK = "elements of one tensor, some left out or repeated"
    MERGE = "elements of several tensors, or of one and a constant"
    CONTAINER = "sequences and optionals of tensors, and tensors out of them"
    SELECTION = "some elements, chosen by their values"
    EXACT = "element by element, exactly"
    ACTIVATION = "element by element, a function between layers"
    FUNCTION = "element by element, a mathematical function"
    ARITHMETIC = "element by element, of several tensors"
    PRODUCT = "sums of products"
    ATTENTION = "products with a softmax or a state between them"
    RECURRENT = "step by step along a sequence, with a state"
    POOLING = "a sum or mean over windows"
    REDUCTION = "a sum, mean or product along axes"
    NORMALIZATION = "elements over their deviation or norm"
    SOFTMAX = "shares of exponentials"
    RESAMPLING = "weighted means of neighbours"
    SPECTRUM = "sums with sines and cosines"
    CAST = "another type"
    QUANTIZER = "scaled integers, and floats out of them"
    INTEGER_PRODUCT = "products of scaled integers"
    CHOICE = "which element is the greatest or the least"
    COMPARISON = "whether an element is greater than another, or equal"
    LOGIC = "truth values from truth values"
    BITS = "integers bit by bit"
    QUERY = "whether an element is infinite, how long a sequence is"
    POSITION = "places, as many as the values ask for"
    SHAPE = "sizes"
    CONSTANT = "values that follow from attributes and sizes"
    RANDOM = "values drawn anew at every run"
    CONTROL = "what the bodies make"
    CLASSICAL = "trees, encoders and optimizers: of other domains of ONNX"
    TEXT = "strings from strings"
    OTHER = "losses, whole matrices, pictures: no layer of a deployed network"


@dataclass(frozen=True)
class OpFacts:
    """What is true of an operator.

    Attributes:
        kind: How it makes its results.
        data: Inputs whose elements are values, rather than sizes, indices, axes, bounds or coordinates; None: all.
        coordinates: Inputs that tell between which elements values are read, as floats.
        operands: Inputs that are multiplied with each other and added up; None: all.
        channel_axis: Axis of the weights (the second input) along which the output channels lie, where always the same.
        family: The operator that does the same up to a bias, a function behind it, or how its operands are stored.
        activation: A product's kernel takes it along as its activation.
        pointwise: Kernels compute it together with others, element by element.
        windowed: It has a kernel, strides and padding over the axes behind the second.
        channels_first: It takes the second axis for the channels.
        commutative: Its inputs can be exchanged.
        container: Its output is a sequence, an optional or a map.
        open_shape: The shape of its output depends on values.
        contrib: It is ONNX Runtime's own; ONNX does not define it.
    """

    kind: Kind
    data: tuple[int, ...] | None = None
    coordinates: tuple[int, ...] = ()
    operands: tuple[int, ...] | None = ()
    channel_axis: int | None = None
    family: str = ""
    activation: bool = False
    pointwise: bool = False
    windowed: bool = False
    channels_first: bool = False
    commutative: bool = False
    container: bool = False
    open_shape: bool = False
    contrib: bool = False


# fmt: off
ROWS: tuple[tuple[str, OpFacts], ...] = (
    ("Identity", OpFacts(Kind.COPY)),
    ("Dropout", OpFacts(Kind.COPY, data=(0,))),
    ("Reshape Squeeze Unsqueeze Flatten", OpFacts(Kind.RESHAPE, data=(0,))),
    ("Transpose ReverseSequence", OpFacts(Kind.PERMUTATION, data=(0,))),
    ("DepthToSpace SpaceToDepth", OpFacts(Kind.PERMUTATION, channels_first=True)),
    ("Slice Split Gather GatherElements GatherND Expand Tile", OpFacts(Kind.PICK, data=(0,))),
    ("Compress", OpFacts(Kind.PICK, data=(0,), open_shape=True)),
    ("Concat", OpFacts(Kind.MERGE)),
    ("Where", OpFacts(Kind.MERGE, data=(1, 2))),
    ("Scatter ScatterElements ScatterND", OpFacts(Kind.MERGE, data=(0, 2))),
    ("TensorScatter", OpFacts(Kind.MERGE, data=(0, 1))),
    ("Pad", OpFacts(Kind.MERGE, data=(0, 2))),
    ("CenterCropPad Trilu MaxUnpool", OpFacts(Kind.MERGE, data=(0,))),
    ("SequenceConstruct SequenceEmpty Optional", OpFacts(Kind.CONTAINER, container=True)),
    ("SplitToSequence SequenceErase", OpFacts(Kind.CONTAINER, data=(0,), container=True)),
    ("SequenceInsert", OpFacts(Kind.CONTAINER, data=(0, 1), container=True)),
    ("SequenceAt ConcatFromSequence OptionalGetElement", OpFacts(Kind.CONTAINER, data=(0,))),

    ("Max Min", OpFacts(Kind.SELECTION, pointwise=True, commutative=True)),
    ("MaxPool", OpFacts(Kind.SELECTION, windowed=True, channels_first=True)),
    ("MaxRoiPool", OpFacts(Kind.SELECTION, data=(0,), coordinates=(1,))),
    ("GlobalMaxPool ReduceMax ReduceMin TopK", OpFacts(Kind.SELECTION, data=(0,))),
    ("Unique", OpFacts(Kind.SELECTION, data=(0,), open_shape=True)),
    ("Relu", OpFacts(Kind.EXACT, activation=True)),
    ("Abs Neg Sign Floor Ceil Round", OpFacts(Kind.EXACT, pointwise=True)),
    ("Clip", OpFacts(Kind.ACTIVATION, data=(0,), activation=True)),
    ("LeakyRelu PRelu ThresholdedRelu HardSigmoid HardSwish Sigmoid Tanh Elu Selu Celu Softplus Softsign Mish Swish "
     "Gelu", OpFacts(Kind.ACTIVATION, activation=True)),
    ("FastGelu", OpFacts(Kind.ACTIVATION, family="Gelu", activation=True, contrib=True)),
    ("QuickGelu", OpFacts(Kind.ACTIVATION, activation=True, contrib=True)),
    ("BiasGelu", OpFacts(Kind.ACTIVATION, family="Gelu", contrib=True)),
    ("Shrink SwiGLU", OpFacts(Kind.ACTIVATION)),
    ("Exp Log Sqrt Reciprocal Erf Sin Cos", OpFacts(Kind.FUNCTION, pointwise=True)),
    ("Tan Asin Acos Atan Sinh Cosh Asinh Acosh Atanh", OpFacts(Kind.FUNCTION)),
    ("Add Mul Sum", OpFacts(Kind.ARITHMETIC, pointwise=True, commutative=True)),
    ("Sub Div Pow", OpFacts(Kind.ARITHMETIC, pointwise=True)),
    ("Mean", OpFacts(Kind.ARITHMETIC, commutative=True)),
    ("Mod", OpFacts(Kind.ARITHMETIC)),
    ("BiasAdd", OpFacts(Kind.ARITHMETIC, family="Add", contrib=True)),

    ("Conv", OpFacts(Kind.PRODUCT, operands=(0, 1), channel_axis=0, windowed=True, channels_first=True)),
    ("ConvTranspose", OpFacts(Kind.PRODUCT, operands=(0, 1), channel_axis=1, windowed=True, channels_first=True)),
    ("DeformConv", OpFacts(Kind.PRODUCT, operands=(0, 1), channel_axis=0, windowed=True, channels_first=True)),
    ("FusedConv", OpFacts(Kind.PRODUCT, operands=(0, 1), channel_axis=0, family="Conv", contrib=True)),
    ("MatMul", OpFacts(Kind.PRODUCT, operands=(0, 1))),
    ("Gemm", OpFacts(Kind.PRODUCT, operands=(0, 1), family="MatMul")),
    ("FusedMatMul FusedGemm", OpFacts(Kind.PRODUCT, operands=(0, 1), family="MatMul", contrib=True)),
    ("Einsum", OpFacts(Kind.PRODUCT, operands=None)),
    ("Attention FlexAttention LinearAttention CausalConvWithState", OpFacts(Kind.ATTENTION)),
    ("LSTM GRU RNN", OpFacts(Kind.RECURRENT)),
    ("AveragePool LpPool", OpFacts(Kind.POOLING, windowed=True, channels_first=True)),
    ("GlobalAveragePool GlobalLpPool", OpFacts(Kind.POOLING)),
    ("ReduceSum ReduceMean ReduceProd ReduceL1 ReduceL2 ReduceSumSquare ReduceLogSum ReduceLogSumExp CumSum CumProd "
     "Col2Im", OpFacts(Kind.REDUCTION, data=(0,))),
    ("BatchNormalization", OpFacts(Kind.NORMALIZATION, pointwise=True, channels_first=True)),
    ("InstanceNormalization GroupNormalization LRN", OpFacts(Kind.NORMALIZATION, channels_first=True)),
    ("LayerNormalization LpNormalization RMSNormalization MeanVarianceNormalization", OpFacts(Kind.NORMALIZATION)),
    ("SkipLayerNormalization SkipSimplifiedLayerNormalization",
     OpFacts(Kind.NORMALIZATION, family="Add", contrib=True)),
    ("SimplifiedLayerNormalization GroupNorm SkipGroupNorm", OpFacts(Kind.NORMALIZATION, contrib=True)),
    ("Softmax LogSoftmax", OpFacts(Kind.SOFTMAX)),
    ("BiasSoftmax", OpFacts(Kind.SOFTMAX, contrib=True)),
    ("Resize", OpFacts(Kind.RESAMPLING, data=(0,), channels_first=True)),
    ("Upsample", OpFacts(Kind.RESAMPLING, data=(0,), family="Resize", channels_first=True)),
    ("GridSample RoiAlign", OpFacts(Kind.RESAMPLING, data=(0,), coordinates=(1,))),
    ("AffineGrid", OpFacts(Kind.RESAMPLING, data=(0,))),
    ("RotaryEmbedding", OpFacts(Kind.SPECTRUM)),
    ("DFT", OpFacts(Kind.SPECTRUM, data=(0,))),
    ("STFT", OpFacts(Kind.SPECTRUM, data=(0, 2))),

    ("Cast CastLike BitCast", OpFacts(Kind.CAST, data=(0,))),
    ("QuantizeLinear DequantizeLinear DynamicQuantizeLinear", OpFacts(Kind.QUANTIZER, data=(0,))),
    ("ConvInteger QLinearConv", OpFacts(Kind.INTEGER_PRODUCT, windowed=True, channels_first=True)),
    ("MatMulInteger QLinearMatMul", OpFacts(Kind.INTEGER_PRODUCT)),
    ("MatMulIntegerToFloat DynamicQuantizeMatMul MatMulNBits MatMulBnb4", OpFacts(Kind.INTEGER_PRODUCT, contrib=True)),
    ("QGemm QAttention QMoE DynamicQuantizeLSTM", OpFacts(Kind.INTEGER_PRODUCT, contrib=True)),
    ("QLinearAdd QLinearMul GatherBlockQuantized", OpFacts(Kind.INTEGER_PRODUCT, contrib=True)),
    ("ArgMax ArgMin Hardmax", OpFacts(Kind.CHOICE)),
    ("Greater GreaterOrEqual Less LessOrEqual", OpFacts(Kind.COMPARISON)),
    ("Equal", OpFacts(Kind.COMPARISON, commutative=True)),
    ("And Or Xor", OpFacts(Kind.LOGIC, commutative=True)),
    ("Not", OpFacts(Kind.LOGIC)),
    ("BitwiseAnd BitwiseOr BitwiseXor", OpFacts(Kind.BITS, commutative=True)),
    ("BitwiseNot BitShift", OpFacts(Kind.BITS)),
    ("IsNaN IsInf SequenceLength OptionalHasElement", OpFacts(Kind.QUERY, data=(0,))),
    ("NonZero", OpFacts(Kind.POSITION, open_shape=True)),
    ("NonMaxSuppression", OpFacts(Kind.POSITION, data=(0, 1), open_shape=True)),
    ("Shape Size", OpFacts(Kind.SHAPE, data=())),
    ("Constant ConstantOfShape EyeLike Range", OpFacts(Kind.CONSTANT, data=())),
    ("OneHot", OpFacts(Kind.CONSTANT, data=(2,))),
    ("HannWindow HammingWindow BlackmanWindow MelWeightMatrix", OpFacts(Kind.CONSTANT, data=())),
    ("RandomNormal RandomUniform RandomNormalLike RandomUniformLike Multinomial Bernoulli", OpFacts(Kind.RANDOM)),
    ("If Loop Scan", OpFacts(Kind.CONTROL)),
    ("SequenceMap", OpFacts(Kind.CONTROL, container=True)),
    ("ArrayFeatureExtractor Binarizer CastMap CategoryMapper DictVectorizer FeatureVectorizer Imputer LabelEncoder "
     "LinearClassifier LinearRegressor Normalizer OneHotEncoder SVMClassifier SVMRegressor Scaler TreeEnsemble "
     "TreeEnsembleClassifier TreeEnsembleRegressor Adagrad Adam Gradient Momentum", OpFacts(Kind.CLASSICAL)),
    ("ZipMap", OpFacts(Kind.CLASSICAL, container=True)),
    ("StringConcat StringNormalizer StringSplit RegexFullMatch", OpFacts(Kind.TEXT)),
    ("TfIdfVectorizer Det NegativeLogLikelihoodLoss SoftmaxCrossEntropyLoss ImageDecoder", OpFacts(Kind.OTHER)),
    ("Inverse", OpFacts(Kind.OTHER, contrib=True)),
)
# fmt: on

OPERATORS: dict[str, OpFacts] = {name: facts for names, facts in ROWS for name in names.split()}
"""The table, by the operator's name."""

_UNKNOWN = OpFacts(Kind.OTHER)
_KNOWN_DOMAINS = STANDARD_DOMAINS | _TRAINING_DOMAINS | {CONTRIB_DOMAIN, ML_DOMAIN, "ai.onnx.preview"}


def is_standard(node: onnx.NodeProto) -> bool:
    """Whether a node's operator is of ONNX's main domain."""
    return node.domain in STANDARD_DOMAINS


def domain_of(node: onnx.NodeProto) -> str:
    """The domain of a node's operator; ONNX's main one is the empty string."""
    return "" if node.domain in STANDARD_DOMAINS else node.domain


def operator(node: onnx.NodeProto) -> str:
    """The name under which the table and the sets here know a node's operator, if they do.

    Operators of domains that neither ONNX nor ONNX Runtime defines are no such operators, whatever they are called.
    """
    return node.op_type if node.domain in _KNOWN_DOMAINS else f"{node.domain}::{node.op_type}"


def facts_of(node: onnx.NodeProto) -> OpFacts:
    """What is known of a node's operator; of one that is not in the table, that all its inputs are values."""
    return OPERATORS.get(operator(node), _UNKNOWN)


def family(node: onnx.NodeProto) -> str:
    """The operator that does the same up to a bias, a function behind it, or how its operands are stored."""
    return facts_of(node).family or operator(node)


def is_data(node: onnx.NodeProto, position: int) -> bool:
    """Whether the elements of a node's input are values, rather than sizes, indices, axes, bounds or coordinates."""
    data = facts_of(node).data
    return data is None or position in data


def _where(test: Callable[[OpFacts], bool]) -> frozenset[str]:
    return frozenset(name for name, facts in OPERATORS.items() if test(facts))


def _of(*kinds: Kind) -> frozenset[str]:
    return _where(lambda facts: facts.kind in kinds)


# -- data movement --

MOVEMENT = _of(Kind.COPY, Kind.RESHAPE, Kind.PERMUTATION, Kind.PICK, Kind.MERGE, Kind.CONTAINER)
"""Operators that carry values and compute none: what they give is rounded if what they get is."""

FLAT = _of(Kind.COPY, Kind.RESHAPE)
"""Operators that keep the elements in their order."""

RESHAPES = _of(Kind.RESHAPE)
"""Operators that give another shape to the elements in their order."""

REARRANGING = FLAT | _of(Kind.PERMUTATION, Kind.PICK) | {"Concat"}
"""Operators whose results are elements of what they get, at places that do not depend on values."""

MAGNITUDES = REARRANGING | {"MaxPool", "GlobalMaxPool", "ReduceMax", "Max"}
"""Operators that give magnitudes from magnitudes by themselves: |max(a, b)| <= max(|a|, |b|)."""

STRETCHES = FLAT | _of(Kind.PERMUTATION) | {"Expand", "Tile"}
"""Operators of one data input that move or repeat all its values."""

RENAMES = _of(Kind.RESHAPE) - {"Flatten"} | {"Identity", "Transpose"}
"""What converters put around an operator to fit the layout of its operands."""

WITHIN_RANGE = (
    MOVEMENT | _of(Kind.SELECTION) | {"Cast", "CastLike", "Relu", "Floor", "Ceil", "Round", "Clip", "ReduceMean"}
) - _of(Kind.CONTAINER)
"""Operators that give no greater and no smaller values than they get, but for the ends that they clip to."""

CONTAINERS = _where(lambda facts: facts.container)
"""Operators that give a sequence, an optional or a map, which no runtime takes as an input."""

OPEN_SHAPES = _where(lambda facts: facts.open_shape)
"""Operators whose output shape depends on values."""

LAYOUT_LOST = (
    RESHAPES
    | _of(Kind.RECURRENT)
    | {"If", "Loop", "Scan", "Shape", "ConstantOfShape", "EyeLike", "OneHot", "NonZero", "NonMaxSuppression", "TopK"}
    | {"Expand", "Tile"}
)
"""Operators whose output tells nothing about the layout (channels first or last) of what they got."""

# -- arithmetic --

PRODUCTS = _of(Kind.PRODUCT)
"""Sums of products of two operands: convolutions and matrix products."""

FUSING_PRODUCTS = PRODUCTS - {"DeformConv", "Einsum"}
"""Products whose kernels take along what follows: a bias, a scale, an activation, a residual."""

RECURRENT = _of(Kind.RECURRENT)
"""Operators with a state that rounds at every step."""

AFFINE_PRODUCTS = frozenset(n for n in FUSING_PRODUCTS if not OPERATORS[n].contrib)
"""Products of ONNX that with constant weights are an affine map."""

AFFINE_STEPS = frozenset({"BatchNormalization", "Mul", "Add", "Sub", "Div"})
"""Operators that scale and shift, with constants."""

ACTIVATIONS = _where(lambda facts: facts.activation)
"""Elementwise operators of one data input that a product takes as its activation."""

POINTWISE = _where(lambda facts: facts.activation or facts.pointwise)
"""Operators that work element by element (a BatchNormalization: channel by channel, with constants)."""

LASTING = _of(Kind.ACTIVATION, Kind.SOFTMAX) | {"Relu", "MaxPool", "GlobalMaxPool"}
"""Functions that are no affine map, and that a rewriting which folds maps into each other leaves where they are."""

PROBABILITIES = _of(Kind.SOFTMAX) - {"LogSoftmax"} | {"Sigmoid", "HardSigmoid", "Hardmax"}
"""Operators that give probabilities."""

NORMALIZING_REDUCTIONS = frozenset({"ReduceMean", "ReduceSum", "ReduceMax", "ReduceL2", "ReduceSumSquare"})
"""What a normalization in pieces reduces with."""

WEIGHTED = PRODUCTS | RECURRENT | AFFINE_STEPS | {
    "LayerNormalization", "InstanceNormalization", "GroupNormalization", "RMSNormalization", "PRelu",
}  # fmt: skip
"""Operators whose constants are weights, which a target rounds."""

LIBRARY_FUNCTIONS = (
    _of(Kind.ACTIVATION, Kind.FUNCTION, Kind.SOFTMAX, Kind.NORMALIZATION, Kind.RECURRENT, Kind.RESAMPLING)
    | {"Div", "Pow"}
) - {"Clip", "LeakyRelu", "PRelu", "ThresholdedRelu", "Shrink", "BatchNormalization"}
"""Operators whose elements are off by more than one rounding: a library's functions, and several steps in one."""

ABSOLUTE = frozenset({
    "Sigmoid", "Gelu", "FastGelu", "BiasGelu", "QuickGelu", "Elu", "Selu", "Celu", "HannWindow", "HammingWindow",
    "BlackmanWindow",
})  # fmt: skip
"""Functions that runtimes compute to an absolute error, since what they add up is of size 1 and may cancel: ONNX
Runtime's sigmoid, far below zero, is steps of 2^-25."""

SEVERAL_STEPS = _of(Kind.ATTENTION, Kind.NORMALIZATION, Kind.RESAMPLING, Kind.SPECTRUM) | {
    "Det", "NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss", "Inverse", "LogSoftmax",
}  # fmt: skip
"""Operators that add up what they compute themselves: where it cancels, the error is larger than that of the result."""

BATCHWISE = _of(Kind.EXACT, Kind.ACTIVATION, Kind.FUNCTION, Kind.ARITHMETIC, Kind.POOLING) | {
    "Identity", "Max", "Min", "MaxPool", "GlobalMaxPool", "Conv", "ConvTranspose", "BatchNormalization",
    "InstanceNormalization",
}  # fmt: skip
"""Operators that treat the entries of a batch (axis 0) each on its own, whatever their attributes."""

BROADCASTING = _of(Kind.COMPARISON, Kind.LOGIC, Kind.ARITHMETIC) - {"Not"} | {
    "Max", "Min", "Where", "PRelu", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitShift",
}  # fmt: skip
"""Operators of which an operand of fewer axes is repeated along those that it has not."""

COMMUTATIVE = _where(lambda facts: facts.commutative)
"""Operators whose inputs can be exchanged."""

WINDOWED = _where(lambda facts: facts.windowed)
"""Operators with a kernel, strides and padding over the axes behind the second."""

EPILOGUES = frozenset({
    "FusedConv", "FusedGemm", "SkipLayerNormalization", "SkipSimplifiedLayerNormalization", "BiasGelu",
})  # fmt: skip
"""Operators of ONNX Runtime that do more than the operator of their family: their output is a later tensor."""

SHAPED_LIKE_FIRST = frozenset({
    "Gelu", "FastGelu", "BiasGelu", "QuickGelu", "BiasAdd", "BiasSoftmax", "GroupNorm", "SkipGroupNorm",
    "SimplifiedLayerNormalization", "SkipLayerNormalization", "SkipSimplifiedLayerNormalization", "RotaryEmbedding",
})  # fmt: skip
"""Operators of ONNX Runtime whose first output has the shape of their first input."""

ONE_SOURCE_CONTRIB = frozenset({"BiasGelu", "FastGelu", "QuickGelu", "Gelu", "BiasAdd", "Inverse", "GroupNorm"})
"""Operators of ONNX Runtime that have one source of data and no weights of a product."""

# -- what does not round --

SELECTION = _of(Kind.SELECTION, Kind.EXACT)
"""Operators whose results the format holds whenever it holds their inputs."""

CASTS = _of(Kind.CAST)
"""Operators that give another type to values."""

COMPARISONS = _of(Kind.COMPARISON)
"""Operators that compare two tensors element by element."""

LOGIC = _of(Kind.LOGIC)
"""Operators on truth values."""

CHOICES = frozenset({"ArgMax", "ArgMin", "TopK"})
"""Operators that tell which element is the greatest or the least."""

RANDOM = _of(Kind.RANDOM)
"""Operators whose output is drawn anew at every run. Dropout is one of them while training."""

DIVIDES = frozenset({"Div", "Reciprocal", "Log", "Pow"})
"""Operators that make no number of a zero which stands where a small number should."""

INTEGER_ARITHMETIC = frozenset({"Div", "Mod", "Mul", "Pow", "BitShift"}) | _of(Kind.REDUCTION) | PRODUCTS
"""Operators of which runtimes and exporters make something else for integers: a quotient that is cut off instead of
rounded down, a sum in a narrower type."""

STRETCHING = frozenset({"Exp", "Pow", "Reciprocal", "Cosh", "Sinh", "ReduceSum", "ReduceSumSquare", "ReduceProd"})
"""Operators whose results may be of another order of magnitude than what they are given, whatever else they read."""

SHAPES = _of(Kind.SHAPE)
"""Operators that tell sizes, whatever the values are."""

CONTROL_FLOW = frozenset({"If", "Loop", "Scan"})
"""Operators that have bodies."""

QUANTIZERS = _of(Kind.QUANTIZER)
"""Operators that make scaled integers of floats, or floats of them."""

JUMPS = COMPARISONS | CHOICES | _of(Kind.POSITION) | {
    "Floor", "Ceil", "Round", "Sign", "Mod", "Hardmax", "Shrink", "ThresholdedRelu", "RoiAlign", "MaxRoiPool",
    "QuantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul", "GridSample", "Unique", "Binarizer",
    "LinearClassifier", "SVMClassifier", "TreeEnsemble", "TreeEnsembleClassifier", "TreeEnsembleRegressor",
}  # fmt: skip
"""Operators whose results jump where a floating-point input moves over an edge."""

ROUNDS_TO_INTEGERS = frozenset({"Floor", "Ceil", "Round", "Sign"})
"""Operators that make floats of floats, and integers of all of them."""

STEPS_OF_INTEGERS = frozenset({"Add", "Sub", "Mul", "Neg", "Abs", "Min", "Max", "Relu", "Clip"})
"""Operators that make integers of integers, element by element."""

PICKS = CHOICES | _of(Kind.POSITION) | {
    "Mod", "Hardmax", "Unique", "Binarizer", "LinearClassifier", "SVMClassifier", "TreeEnsembleClassifier",
}  # fmt: skip
"""Those of them that tell places, labels or remainders, of which the next one is no better than any other."""

SCATTERS = frozenset({"Scatter", "ScatterElements", "ScatterND"})
"""Write updates to places that their second input names."""

LOOKUPS = SCATTERS | {"Gather", "GatherElements", "GatherND", "OneHot", "ArrayFeatureExtractor"}
"""Operators that read or write at places that another input names."""

NUMERIC = FLAT | {"Transpose", "Slice", "Concat", "Clip", "Add", "Sub", "Mul", "Max", "Min"}
"""Operators that leave numbers which floats were rounded to what they are: numbers, and about as large."""

INTEGER_PRODUCTS = _of(Kind.INTEGER_PRODUCT)
"""Products and sums of scaled integers, or of weights that are stored so."""

QUANTIZED = QUANTIZERS | INTEGER_PRODUCTS
"""Operators that take or give scaled integers."""

UNTOUCHED = QUANTIZERS | COMPARISONS | LOGIC | RANDOM | SHAPES | _of(
    Kind.INTEGER_PRODUCT, Kind.CONSTANT, Kind.POSITION, Kind.QUERY, Kind.CONTROL, Kind.CLASSICAL, Kind.TEXT
)  # fmt: skip
"""Operators whose floats are no activations (or whose bodies are rewritten instead)."""

SUMS = frozenset({"Add", "Sub", "Sum", "Mean"})
"""Operators that add up tensors, element by element."""

SUMMING = SUMS | _of(Kind.PRODUCT, Kind.ATTENTION, Kind.REDUCTION, Kind.POOLING, Kind.NORMALIZATION, Kind.SPECTRUM)
"""Operators that add up terms, which may cancel."""

EXACT_OPERATORS = MOVEMENT | SELECTION | COMPARISONS | LOGIC | SHAPES | CHOICES | _of(
    Kind.CONSTANT, Kind.POSITION, Kind.BITS, Kind.QUERY
) - {"HannWindow", "HammingWindow", "BlackmanWindow", "MelWeightMatrix"} | {"Clip"}  # fmt: skip
"""Operators that move, choose or flip values but do not round them."""

SILENT = FLAT | {"Transpose", "Cast", "Constant", "Shape"}
"""Operators that compute nothing."""

FOLDABLE = COMPARISONS | LOGIC | frozenset({
    "Shape", "Cast", "Identity", "Squeeze", "Unsqueeze", "Reshape", "Transpose", "Concat", "Slice", "Gather", "Add",
    "Sub", "Mul", "Div", "Neg", "Range", "Expand", "ConstantOfShape", "Min", "Max", "Where", "Floor", "Ceil",
    "Sqrt", "Reciprocal", "Split", "ReduceProd", "ReduceSum", "ReduceMax", "Tile", "Mod",
})  # fmt: skip
"""Data movement, comparisons and integer arithmetic that small constants are folded through."""

SCORES = {
    "TreeEnsembleClassifier": 1, "LinearClassifier": 1, "SVMClassifier": 1, "TreeEnsembleRegressor": 0,
    "LinearRegressor": 0, "SVMRegressor": 0, "Scaler": 0, "Normalizer": 0,
}  # fmt: skip
"""Operators of classical models that give FP32 whatever they are given, and which of their outputs it is."""

LANDMARKS = RECURRENT | CONTROL_FLOW | WINDOWED | _of(Kind.INTEGER_PRODUCT) | {
    "MatMul", "Einsum", "Resize", "GridSample", "RoiAlign", "TopK", "NonMaxSuppression", "NonZero", "Split", "GatherND",
    "ScatterND", "ScatterElements",
}  # fmt: skip
"""Families of operators by which two graphs are matched first, even where they have a single source of data."""
