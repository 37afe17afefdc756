"""Programs of PyTorch that write into their values, through views of them also: what is run is what the program does.

What the program gives when Python calls it is the truth, for what is exported, traced or called, whole and in part.
"""

from __future__ import annotations

import random
import sys

import numpy as np
import pytest
from layerdiff import Comparator, OnnxrtRunner, TorchRunner, load

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from layerdiff.runners.pytorch.programs import EagerProgram, ExportedProgram, ScriptProgram  # noqa: E402

SHAPE = (2, 6, 8)


class Network(torch.nn.Module):
    """One layer, and state that a program may write into."""

    def __init__(self, body):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.body, self.plain = torch.nn.Linear(8, 8), body, torch.ones(8)
        self.register_buffer("count", torch.zeros(8))
        self.eval()

    def forward(self, x):
        return self.body(self, x)


# ---- programs, one for each way to write ----------------------------------------------------------------------------


def a_slice_is_set(net, x):
    y = net.layer(x)
    y[..., 2:4] = torch.exp(y[..., 2:4])
    return y * 2


def it_is_returned_afterwards(net, x):
    y = net.layer(x)
    y[:, 0] = 3.0
    return y


def a_view_is_returned_afterwards(net, x):
    y = net.layer(x)
    view = y[:, 1]
    y.mul_(2)
    return view, view + 1


def a_view_of_views_is_added_to(net, x):
    y = net.layer(x)
    y.transpose(1, 2)[:, 3].unsqueeze(0).add_(3)
    return y * 2


def the_diagonal_is_added_to(net, x):
    y = net.layer(x)
    y.diagonal(dim1=1, dim2=2).add_(2.0)
    y.view(-1)[3:9].fill_(0)
    return torch.softmax(y, -1)


def indices_are_put(net, x):
    y = net.layer(x)
    y[:, torch.tensor([0, 2])] = 1.0
    y[:, 3:][y[:, 3:] > 0.5] = 0.0
    y[:, 1].scatter_(1, torch.zeros(2, 3, dtype=torch.int64), 1.5)
    return y * 2


def out_is_a_view(net, x):
    y = torch.zeros_like(x)
    torch.exp(x[:, 0], out=y[:, 0])
    return net.layer(y)


def the_input_is_written_into(net, x):
    x[:, 0].mul_(2)
    return net.layer(x), x


def it_writes_where_gradients_are_off(net, x):
    y = net.layer(x).clone()
    with torch.no_grad():
        y[:, 0] = 4.0
    return y * 2


def rows_are_swapped(net, x):
    y = net.layer(x)
    kept = y[:, 0].clone()
    y[:, 0] = y[:, 1]
    y[:, 1] = kept
    return y * 2


def rows_are_written_into_nothing(net, x):
    y, kept = torch.empty(2, 6, 8), torch.zeros(2, 8)
    for row in range(6):
        kept = torch.tanh(net.layer(x[:, row]) + kept)
        y[:, row] = kept
    return net.layer(y)


def a_constant_is_made_by_parts(net, x):
    weight = torch.zeros(8)
    weight[2] = 5.0
    return net.layer(x) + weight


def it_counts_its_calls(net, x):
    net.count.add_(1)
    return net.layer(x) + net.count


def it_returns_its_count(net, x):
    net.count[2:].add_(1)
    net.count = net.count + 1
    return net.layer(x), net.count


WRITES = [
    a_slice_is_set,
    it_is_returned_afterwards,
    a_view_is_returned_afterwards,
    a_view_of_views_is_added_to,
    the_diagonal_is_added_to,
    indices_are_put,
    out_is_a_view,
    the_input_is_written_into,
    it_writes_where_gradients_are_off,
    rows_are_swapped,
    rows_are_written_into_nothing,
    a_constant_is_made_by_parts,
    it_counts_its_calls,
    it_returns_its_count,
]


def drawn(seed):
    """A program of drawn views, and of writes into any of what there is by then."""
    views = [
        lambda t, n: t.select(n % t.dim(), 0) if t.dim() > 1 else t[:1],
        lambda t, n: t.narrow(n % t.dim(), t.shape[n % t.dim()] // 2, 1 + (t.shape[n % t.dim()] - 1) // 2),
        lambda t, n: t.transpose(0, n % t.dim()),
        lambda t, n: t.unsqueeze(n % (t.dim() + 1)),
        lambda t, n: t[..., ::2],
        lambda t, n: t.reshape(-1),
    ]
    writes = [
        lambda t, u, n: t.add_(n),
        lambda t, u, n: t.mul_(-0.5),
        lambda t, u, n: t.copy_(u.mean()),
        lambda t, u, n: t.fill_(n),
        lambda t, u, n: t.tanh_(),
        lambda t, u, n: t.masked_fill_(t > 0.2, n),
        lambda t, u, n: torch.mul(t.clone(), 0.3, out=t),
        lambda t, u, n: t.index_fill_(0, torch.tensor([0]), n),
    ]
    draw = random.Random(seed)
    steps = [(draw.random() < 0.5, draw.randrange(99), draw.randrange(99), draw.randrange(99)) for _ in range(9)]
    returned = draw.randrange(99), draw.randrange(99)

    def body(net, x):
        there = [x, net.layer(x)]
        for is_view, first, second, number in steps:
            one, other = there[first % len(there)], there[second % len(there)]
            if is_view:
                there.append(views[second % len(views)](one, number))
            else:
                writes[number % len(writes)](one, other, second % 3)
                there.append(one * 2)
        return tuple(there[place % len(there)] for place in returned)

    return body


DRAWN = [pytest.param(drawn(seed), id=f"drawn-{seed}") for seed in range(10)]


@pytest.fixture
def x():
    return torch.from_numpy(np.random.default_rng(7).standard_normal(SHAPE).astype(np.float32))


@pytest.fixture(autouse=True)
def without_gradients():
    with torch.no_grad():
        yield


def given(body, x):
    """What the program gives when it is called for the first time."""
    returned = Network(body)(x.clone())
    return [tensor.clone() for tensor in (returned if isinstance(returned, tuple) else (returned,))]


def same(found, true):
    return len(found) == len(true) and all(torch.allclose(a, b, atol=1e-6) for a, b in zip(found, true, strict=True))


def exported(body, x, folder):
    torch.export.save(torch.export.export(Network(body), (x.clone(),)), folder / "n.pt2")
    return ExportedProgram(torch, str(folder / "n.pt2"), "cpu")


# ---- the whole program ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [*WRITES, *DRAWN])
def test_a_saved_program_gives_what_its_call_gives_each_time(body, x, tmp_path):
    program, true = exported(body, x, tmp_path), given(body, x)
    for _ in range(2):
        assert same([tensor for _, tensor in program.run({"x": x.clone()})], true)


@pytest.mark.parametrize("body", WRITES)
def test_torchscript_gives_what_its_call_gives_each_time(body, x, tmp_path):
    traced = torch.jit.trace(Network(body), (x.clone(),), check_trace=False)
    for name, tensor in traced.named_buffers():
        tensor.copy_(dict(Network(body).named_buffers())[name])  # tracing has run it
    traced.save(tmp_path / "n.pt")
    program, true = ScriptProgram(torch, str(tmp_path / "n.pt"), "cpu"), given(body, x)
    for _ in range(2):
        assert same([tensor for _, tensor in program.run({"x": x.clone()})], true)


def an_object_is_returned_too(net, x):
    return {"y": net.layer(x), "cache": object()}


def test_what_is_no_tensor_may_be_returned_beside_them(x, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "made", lambda: Network(an_object_is_returned_too), raising=False)
    returned = dict(EagerProgram(torch, f"{__name__}:made", "cpu").run({"x": x}))
    assert torch.equal(returned["y"], Network(an_object_is_returned_too)(x)["y"])


def a_plain_tensor_is_counted_in(net, x):
    net.plain.add_(1)
    return net.layer(x) + net.plain


@pytest.mark.parametrize("body", [*WRITES, a_plain_tensor_is_counted_in])
def test_a_module_gives_what_its_call_gives_each_time(body, x, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "made", lambda: Network(body), raising=False)
    program, true = EagerProgram(torch, f"{__name__}:made", "cpu"), given(body, x)
    for _ in range(2):
        assert same([tensor for _, tensor in program.run({"x": x.clone()})], true)


# ---- parts of it ----------------------------------------------------------------------------------------------------


def refuse(*args, **kwargs):
    raise RuntimeError("no such operator in ONNX")


@pytest.mark.parametrize("refused", [False, True], ids=["exporter", "exporter-refuses"])
@pytest.mark.parametrize("body", [*WRITES, *DRAWN])
def test_from_the_values_before_any_place_the_rest_gives_the_same(body, refused, x, tmp_path, monkeypatch):
    """A piece may begin between a view and what is written into it, and what is observed is what it was there."""
    if refused:
        monkeypatch.setattr(torch.onnx, "export", refuse)
    program, true = exported(body, x, tmp_path), given(body, x)
    graph = program.graph({})
    names = [value.name for value in graph.values()]
    made = graph.run({"x": x.clone()}, [*names, *graph.outputs])
    assert same([made[name] for name in graph.outputs], true)
    for count in range(len(names) + 1):
        before = {name: made[name].clone() for name in names[:count]}
        rest = graph.run({"x": x.clone(), **before}, graph.outputs)
        assert same([rest[name] for name in graph.outputs], true)


# ---- the comparison -------------------------------------------------------------------------------------------------


def compare(body, x, folder):
    torch.export.save(torch.export.export(Network(body), (x.clone(),)), folder / "n.pt2")
    runners = [OnnxrtRunner(threads=1), TorchRunner(program=str(folder / "n.pt2"))]
    samples = [{"x": x.numpy()}, {"x": 2 * x.numpy()}]
    return Comparator(load(folder / "n.onnx"), runners, data_loader=samples, layers="all").compare()


RIGHT = [a_slice_is_set, indices_are_put, it_counts_its_calls, rows_are_written_into_nothing]


def test_what_is_not_set_yet_is_the_same_each_time(x, tmp_path):
    """And what the file holds in its place."""
    graph = exported(rows_are_written_into_nothing, x, tmp_path).graph({})
    (unset,) = (value.name for value in graph.values() if value.name.startswith("empty"))
    torch.use_deterministic_algorithms(True)  # which fills with NaN what nothing has been written into
    try:
        assert not graph.run({"x": x}, [unset])[unset].any()
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("body", RIGHT)
def test_a_right_export_passes(body, x, tmp_path):
    torch.onnx.export(Network(body), (x.clone(),), tmp_path / "n.onnx", dynamo=True, verbose=False, input_names=["x"])
    report = compare(body, x, tmp_path)
    assert (report.verdict, report.culprits) == ("pass", ())


def test_an_export_that_lost_the_write_fails(x, tmp_path):
    def lost(net, x):
        y = net.layer(x)
        y[..., 2:4].exp()
        return y * 2

    torch.onnx.export(Network(lost), (x.clone(),), tmp_path / "n.onnx", dynamo=True, verbose=False, input_names=["x"])
    report = compare(a_slice_is_set, x, tmp_path)
    assert report.verdict == "fail"
    assert {culprit.cause for culprit in report.culprits} == {"wrong-op"}
