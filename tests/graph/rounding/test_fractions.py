"""What holds integers is exact, and so are halves and quarters of them."""

import numpy as np
import onnx
import pytest
from layerdiff.graph.index import GraphIndex
from layerdiff.graph.rounding.fractions import fractions
from onnx import numpy_helper, parser

GRAPHS = {
    "a cast": ("y = Cast<to=1>(n)", True),
    "half of a cast": ("f = Cast<to=1>(n) h = Div(f, two) y = Add(h, half)", True),
    "a third of a cast": ("f = Cast<to=1>(n) y = Div(f, three)", False),
    "a third of a cast, rounded": ("f = Cast<to=1>(n) t = Div(f, three) r = Floor(t) y = Mul(r, three)", True),
    "a tenth": ("f = Cast<to=1>(n) y = Mul(f, tenth)", False),
    "a divisor that is no constant": ("f = Cast<to=1>(n) y = Div(two, f)", False),
    "something moved": ("f = Cast<to=1>(n) t = Transpose(f) y = Concat<axis=0>(t, f)", True),
    "beside something else": ("f = Cast<to=1>(n) y = Concat<axis=0>(f, x)", False),
    "a mean": ("f = Cast<to=1>(n) y = ReduceMean(f)", False),
    "an input": ("y = Add(x, half)", False),
    "a narrow type": ("y = Cast<to=10>(n)", False),
    "a float of another type": ("d = Cast<to=11>(x) y = Cast<to=1>(d)", False),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_which_floats_hold_integers_over_a_power_of_two(name):
    nodes, expected = GRAPHS[name]
    text = f'<ir_version: 8, opset_import: ["" : 17]> g (float[4,4] x, int64[4,4] n) => (y) {{ {nodes} }}'
    model = parser.parse_model(text)
    constants = {"two": 2, "half": 0.5, "three": 3, "tenth": 0.1}
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(np.float32(v)), k) for k, v in constants.items())
    model.graph.output[0].ClearField("type")
    assert ("y" in fractions(GraphIndex(onnx.shape_inference.infer_shapes(model)))) == expected
