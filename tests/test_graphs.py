"""CUDA graphs of PyTorch, on a CPU: what a step launches is recorded, and launched again on the same memory.

Like a CUDA graph, `Recording` replays operators on the tensors that they had: whatever Python decided or computed is as
it was in the recorded step, and asking for a number's value, which a capture forbids, is found.
"""

from __future__ import annotations

import numpy as np
import pytest
from networks import thin
from support import TESTED

import spec
from harness.agreement import probe_params, relative_error
from harness.bench.proof import proof_params
from spec.tolerances import TOLERANCES

if "pt" not in TESTED:
    pytest.skip("PyTorch is not tested", allow_module_level=True)

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import googlenet_pt as pt
from googlenet_pt import graphs, optimizer
from googlenet_pt.device import memory_format
from googlenet_pt.predict import _fold, captured

RATES = [0.0625, 0.0625, 0.03125, 0.015625, 0.125, 0.0625, 0.25, 0.03125]  # float32 has them exactly
SMALLER = 5  # the step with a smaller batch, which is not replayed


class _Launches(TorchDispatchMode):
    """Keeps every operator with its arguments and results."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[tuple] = []

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        assert operator is not torch.ops.aten._local_scalar_dense.default, "a capture cannot wait for a number"
        results = operator(*args, **(kwargs or {}))
        self.kept.append((operator, args, kwargs or {}, results))
        return results


class Recording(graphs.Graph):
    """A graph on a CPU. A recorded step has been computed, which a captured one has not: the first replay is over."""

    replays = 0

    @staticmethod
    def _aside(function, inputs):
        return function(*inputs)

    @staticmethod
    def _capture(function):
        with _Launches() as launches:
            outputs = function()
        done = [True]

        @torch.inference_mode()
        def replay() -> None:
            Recording.replays += 1
            if done.pop() if done else False:
                return
            for operator, args, kwargs, results in launches.kept:
                for old, new in zip(tree_leaves(results), tree_leaves(operator(*args, **kwargs)), strict=True):
                    if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                        old.copy_(new)

        return replay, outputs


@pytest.fixture
def recorded(monkeypatch):
    """From now on optimizers record steps, also on a CPU."""
    Recording.replays = 0
    return lambda: monkeypatch.setattr(optimizer, "graph_on", lambda device: Recording())


CASES = {
    "sgd": (spec.preset("lenet-bn"), 28, spec.SGD(0.1, 0.9, weight_decay=0.01, nesterov=True, clip_value=0.02)),
    "plain sgd": (spec.preset("lenet", dropout=0.5), 28, spec.SGD(0.1, 0.0, clip_norm=0.5)),
    "rmsprop": (spec.preset("lenet-bn"), 28, spec.RMSProp(momentum=0.5, clip_norm=0.5, average=0.9, weight_decay=0.01)),
    "adam": (spec.preset("lenet-bn"), 28, spec.Adam(average=0.9)),
    "adamw": (spec.preset("lenet-bn"), 28, spec.AdamW(weight_decay=0.1)),
    "heads": (thin("torchvision"), 97, spec.SGD(0.1, 0.9)),
}


def _trained(config, size, settings, dtype) -> tuple[list, dict, dict]:
    """Losses and hits, parameters and state after steps whose rates, batches and masks differ."""
    model = pt.build(config, dtype, "cpu", params=probe_params(config, 3))
    native, rng, results = pt.make_optimizer(model, settings), np.random.default_rng(0), []
    for number, rate in enumerate(RATES):
        count = 3 if number == SMALLER else 4
        images = rng.normal(size=(count, config.in_channels, size, size)).astype(spec.array_dtype(dtype))
        labels = rng.integers(0, config.num_classes, count)
        masks = spec.dropout_masks(config, images.shape, seed=1, step=number)
        pt.set_rate(native, rate)
        results.append(pt.train_step(model, native, images, labels, masks, scale=count / 4))
    return [(float(x.loss), int(x.correct)) for x in results], pt.dump_params(model), pt.dump_optimizer(model, native)


@pytest.mark.parametrize(
    ("case", "dtype"),
    [
        *((case, "float32") for case in CASES if case != "heads"),
        ("plain sgd", "bfloat16"),
        pytest.param("heads", "float32", marks=pytest.mark.slow),
        pytest.param("heads", "bfloat16", marks=pytest.mark.slow),
    ],
)
def test_replayed_steps_are_the_plain_ones_bit_for_bit(case, dtype, recorded):
    plain = _trained(*CASES[case], dtype)
    recorded()
    replayed = _trained(*CASES[case], dtype)
    assert Recording.replays == len(RATES) - graphs.WARM_UPS - 1
    assert replayed[0] == plain[0]
    for got, expected in zip(replayed[1:], plain[1:], strict=True):
        assert {name for name in expected if not np.array_equal(got[name], expected[name])} == set()
        assert got.keys() == expected.keys()


def test_float64_is_not_captured_since_the_rate_would_be_float32(recorded):
    recorded()
    model = pt.build(spec.preset("lenet"), "float64", "cpu")
    assert pt.make_optimizer(model, spec.SGD()).graph is None


def test_a_state_that_is_loaded_is_captured_anew(recorded):
    recorded()
    model = pt.build(spec.preset("lenet"), "float32", "cpu")
    native = pt.make_optimizer(model, spec.Adam())
    first = native.graph
    pt.load_optimizer(model, native, pt.dump_optimizer(model, native))
    assert isinstance(native.graph, Recording)
    assert native.graph is not first


def test_nothing_is_captured_on_a_cpu():
    assert graphs.graph_on(torch.device("cpu")) is None
    assert isinstance(graphs.graph_on(torch.device("cuda")), graphs.Graph)


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_a_captured_predictor_computes_what_the_model_does(dtype):
    """With batch norm in the weights, as on a GPU, and each call's result its own."""
    config = thin("torchvision", aux=False)
    model = pt.build(config, dtype, "cpu", params=proof_params(config, 3)).eval()
    images = np.random.default_rng(2).normal(size=(2, 2, 3, 64, 64)).astype(spec.array_dtype(dtype))
    one, other = (pt.images_to_device(model, x) for x in images)
    expected = [pt.predict(model, x) for x in images]
    _fold(model)
    assert not any(isinstance(layer, torch.nn.BatchNorm2d) for layer in model.modules())
    run = captured(torch.inference_mode()(lambda x: model(x).logits), one, Recording())
    got = [run(one).numpy(), run(other).numpy()]
    assert max(map(relative_error, got, expected)) <= TOLERANCES[dtype].logits
    assert relative_error(got[1], got[0]) > 0.1


def test_the_layout_that_was_chosen_is_the_parameters():
    model = pt.build(spec.preset("lenet"), "float32", "cpu")
    assert model.conv1.weight.is_contiguous(memory_format=memory_format(torch.device("cpu"), torch.float32, False))
