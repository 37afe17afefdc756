"""Networks with ``ai.onnx.ml`` operators and outputs that are no tensors: what is compared, ties, planted faults."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from layerdiff import Comparator, OnnxrtRunner, ReferenceEvaluatorRunner, load
from onnx import TensorProto, helper

from support.classical import model_of, zipped
from support.models import assembled

ORT = OnnxrtRunner(threads=1)


# ---- sequences and maps ---------------------------------------------------------------------------------------------


def sequence(*nodes, opset=17):
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, None))
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 2])]
    return model_of(list(nodes), inputs, [helper.make_value_info("s", kind)], ml=False, opset=opset)


def run(model, runner=ORT, rows=3):
    model = load(model)
    with runner.session(model) as session:
        return session.infer({"x": np.arange(2 * rows, dtype=np.float32).reshape(rows, 2)})


@pytest.mark.parametrize("runner", [ORT, ReferenceEvaluatorRunner()])
def test_a_sequence_of_maps_is_its_values_and_its_keys(runner):
    made = run(zipped(["cat", "dog"]), runner)
    assert made["p"].tolist() == [[0, 1], [2, 3], [4, 5]]
    assert made["p.keys"].tolist() == ["cat", "dog"]


@pytest.mark.parametrize("runner", [ORT, ReferenceEvaluatorRunner()])
def test_a_sequence_of_a_fixed_length_is_its_elements(runner):
    construct = helper.make_node("SequenceConstruct", ["x", "y"], ["s"])
    made = run(sequence(helper.make_node("Neg", ["x"], ["y"]), construct), runner, rows=1)
    assert {name: array.tolist() for name, array in made.items()} == {"s[0]": [[0, 1]], "s[1]": [[0, -1]]}


@pytest.mark.parametrize("runner", [ORT, ReferenceEvaluatorRunner()])
def test_a_sequence_of_any_length_is_its_values_in_a_row_and_their_shapes(runner):
    made = run(sequence(helper.make_node("SplitToSequence", ["x"], ["s"], axis=0, keepdims=0)), runner)
    assert made["s"].tolist() == [0, 1, 2, 3, 4, 5]
    assert made["s.shapes"].tolist() == [1, 2, 1, 2, 1, 2]


def test_that_outputs_were_rewritten_is_said():
    data = [{"x": np.ones((2, 2), np.float32)}]
    report = Comparator(zipped(["a", "b"]), [ORT, ReferenceEvaluatorRunner()], data_loader=data).compare()
    assert report.verdict == "pass"
    assert [notice.code for notice in report.notices] == ["outputs-unfolded"]


@pytest.mark.parametrize(
    ("other", "failing"), [(zipped(["a", "c"]), ["p.keys"]), (zipped(["a", "b"], 1.01), ["p"])], ids=["keys", "values"]
)
def test_other_keys_and_other_values_fail(other, failing):
    data = [{"x": np.ones((2, 2), np.float32)}]
    report = Comparator(zipped(["a", "b"]), [ORT], candidate_model=other, data_loader=data).compare()
    assert [output.tensor for output in report.outputs if output.verdict == "fail"] == failing


def test_other_keys_are_a_culprit():
    data = [{"x": np.ones((2, 2), np.float32)}]
    other = zipped(["a", "c"])
    report = Comparator(zipped(["a", "b"]), [ORT], candidate_model=other, data_loader=data, layers="guilty").compare()
    assert [(c.node, c.tensors, c.cause) for c in report.culprits] == [("p/keys", ("p.keys",), "weights")]
    assert report.culprits[0].evidence == "1 of 2 values differ, 'b' against 'c' at [1]"


# ---- FP32 beside FP64 -----------------------------------------------------------------------------------------------


def ensemble(thresholds, double=False, labels=None):
    """Trees of one split each on the only feature: 1 where it is greater than the threshold, as one of two classes."""
    count = len(thresholds)
    kind = TensorProto.DOUBLE if double else TensorProto.FLOAT
    values = [value for t in thresholds for value in (t, 0.0, 0.0)]
    leaves = [i for i in range(count) for _ in range(2)]
    names = {"nodes_values_as_tensor": "nodes_values", "class_weights_as_tensor": "class_weights"}
    weights = {"nodes_values_as_tensor": values, "class_weights_as_tensor": [0.0, 1 / count] * count}
    stored = (
        {name: helper.make_tensor(name, kind, [len(given)], given) for name, given in weights.items()}
        if double
        else {names[name]: given for name, given in weights.items()}
    )
    node = helper.make_node(
        "TreeEnsembleClassifier",
        ["x"],
        ["label", "scores"],
        name="trees",
        domain="ai.onnx.ml",
        nodes_treeids=[i for i in range(count) for _ in range(3)],
        nodes_nodeids=[0, 1, 2] * count,
        nodes_featureids=[0] * (3 * count),
        nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"] * count,
        nodes_truenodeids=[1, 0, 0] * count,
        nodes_falsenodeids=[2, 0, 0] * count,
        class_treeids=leaves,
        class_nodeids=[1, 2] * count,
        class_ids=[1, 1] * count,
        **({"classlabels_int64s": [0, 1]} if labels is None else {"classlabels_strings": labels}),
        post_transform="NONE",
        **stored,
    )
    outputs = [
        helper.make_tensor_value_info("label", TensorProto.INT64 if labels is None else TensorProto.STRING, [None]),
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, [None, 2]),
    ]
    return model_of([node], [helper.make_tensor_value_info("x", kind, [None, 1])], outputs)


POINTS = np.linspace(0, 1, 200).reshape(-1, 1)
TIED = 0.3 + 1e-9  # FP32 has one number for this and for 0.3
AT_A_TIE = np.concatenate([POINTS, [[TIED]]])


def compare(reference, candidate, x, **rules):
    return Comparator(reference, [ORT], candidate_model=candidate, data_loader=[{"x": x}], **rules).compare()


def test_an_input_of_another_float_type_is_cast_and_that_is_said():
    report = compare(ensemble([0.3333], double=True), ensemble([0.3333]), POINTS)
    assert report.verdict == "pass"
    assert [n.text.partition(" for ")[0] for n in report.notices if n.code == "input-cast"] == [
        "'x' is float64 in the first file, and cast to float32"
    ]


@pytest.mark.parametrize("labels", [None, ["no", "yes"]], ids=["integers", "strings"])
def test_a_tree_at_a_threshold_is_a_tie_and_no_fault(labels):
    reference, candidate = (ensemble([0.3], double, labels) for double in (True, False))
    report = compare(reference, candidate, AT_A_TIE, layers="guilty")
    outputs = {output.tensor: output for output in report.outputs}
    assert outputs["scores"].metrics["max_abs"] == 1
    assert outputs["label"].ties == 1
    assert (report.verdict, report.culprits) == ("pass", ())


@pytest.mark.parametrize("labels", [["no", "maybe"], ["yes", "no"]])
def test_other_labels_fail(labels):
    report = compare(ensemble([0.3], labels=["no", "yes"]), ensemble([0.3], labels=labels), POINTS.astype(np.float32))
    assert {output.tensor: output.verdict for output in report.outputs} == {"label": "fail", "scores": "pass"}


def test_another_threshold_is_a_fault_of_the_trees():
    report = compare(ensemble([0.3, 0.3333], double=True), ensemble([0.31, 0.3333]), AT_A_TIE, layers="guilty")
    assert report.verdict == "fail"
    assert [culprit.node for culprit in report.culprits] == ["trees"]


def test_the_same_tie_fails_where_both_files_hold_the_same_type():
    x = np.array([[0.25], [np.nextafter(np.float32(0.3), np.float32(1))]], np.float32)
    above = float(np.nextafter(np.float32(0.3), np.float32(1)))
    assert compare(ensemble([0.3]), ensemble([above]), x).verdict == "fail"


# ---- scikit-learn ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exported():
    """Models of scikit-learn as skl2onnx exports them, in both types."""
    skl2onnx = pytest.importorskip("skl2onnx")
    datasets = pytest.importorskip("sklearn.datasets")
    from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x, y = datasets.load_iris(return_X_y=True)
    names = np.array(["setosa", "versicolor", "virginica"])[y]
    models = {
        "forest": RandomForestClassifier(20, random_state=0).fit(x.astype(np.float32), y),
        "boosted": GradientBoostingClassifier(n_estimators=20, random_state=0).fit(x.astype(np.float32), names),
        "linear": make_pipeline(StandardScaler(), LogisticRegression()).fit(x, y),
    }
    versions = {"": 17, "ai.onnx.ml": 3}
    files = {
        (name, kind.__name__): skl2onnx.to_onnx(model, x[:1].astype(kind), target_opset=versions)
        for name, model in models.items()
        for kind in (np.float32, np.float64)
    }
    return files, x


@pytest.mark.parametrize("name", ["forest", "boosted", "linear"])
def test_a_model_of_scikit_learn_agrees_between_fp32_and_fp64(name, exported):
    files, x = exported
    report = Comparator(
        files[name, "float64"],
        [ORT],
        candidate_model=files[name, "float32"],
        data_loader=[{"X": x}],
        layers="guilty",
    ).compare()
    assert (report.verdict, report.culprits) == ("pass", ())
    assert {output.tensor for output in report.outputs} == {
        "output_label",
        "output_probability",
        "output_probability.keys",
    }


def test_a_weight_of_a_linear_model_that_differs_is_found(exported):
    files, x = exported
    other = onnx.ModelProto()
    other.CopyFrom(files["linear", "float32"])
    (node,) = (n for n in other.graph.node if n.op_type == "LinearClassifier")
    next(a for a in node.attribute if a.name == "coefficients").floats[1] += 0.1
    model = files["linear", "float32"]
    data = [{"X": x.astype(np.float32)}]
    report = Comparator(model, [ORT], candidate_model=other, data_loader=data, layers="guilty").compare()
    assert report.verdict == "fail"
    assert [(culprit.op, culprit.cause) for culprit in report.culprits] == [("LinearClassifier", "attribute")]


def test_keys_are_told_at_the_node_that_has_them():
    models = [zipped(["a", "b"]), zipped(["b", "a"])]
    for model in models:
        next(node for node in model.graph.node if node.op_type == "ZipMap").name = "zip"
    data = [{"x": np.ones((2, 2), np.float32)}]
    report = Comparator(models[0], [ORT], candidate_model=models[1], data_loader=data, layers="guilty").compare()
    assert [c.node for c in report.culprits] == ["zip/keys"]
    assert report.culprits[0].evidence.startswith("2 of 2 values differ")


def support_vectors(gamma: float, scores: str, cast: str):
    settings = {"kernel_type": "RBF", "kernel_params": [gamma, 0.0, 3.0], "coefficients": [1.0, -0.7, 0.4]}
    settings |= {"support_vectors": [0.1, 0.4, -1.0, 0.3, 0.8, -0.5], "vectors_per_class": [2, 1], "rho": [0.1]}
    settings |= {"classlabels_ints": [0, 1], "domain": "ai.onnx.ml"}
    nodes = [
        helper.make_node("SVMClassifier", ["x"], ["label", scores], f"svm{cast}", **settings),
        helper.make_node("Cast", [scores], [cast], f"cast{cast}", to=TensorProto.FLOAT),
        helper.make_node("Neg", [cast], [f"n{cast}"], f"neg{cast}"),
        helper.make_node("Abs", [f"n{cast}"], ["p"], f"abs{cast}"),
    ]
    outputs = [("label", TensorProto.INT64, [None]), ("p", TensorProto.FLOAT, [None, 2])]
    return assembled(nodes, [("x", TensorProto.FLOAT, [None, 2])], outputs, {}, domains=["ai.onnx.ml"])


def test_what_casts_the_scores_of_a_classifier_is_not_blamed_beside_it():
    data = [{"x": np.random.default_rng(0).normal(size=(32, 2)).astype(np.float32)}]
    models = support_vectors(0.1, "s", "c"), support_vectors(0.125, "t", "d")
    report = Comparator(models[0], [ORT], candidate_model=models[1], data_loader=data, layers="guilty").compare()
    assert [(c.node, c.cause) for c in report.culprits] == [("svmc", "attribute")]
