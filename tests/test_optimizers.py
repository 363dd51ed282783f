"""One step of each optimizer against sequences worked out by hand."""

import math
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest

import spec
from spec.optimizers import clip


def run(optimizer, gradients, start=0.0):
    """The single weight after each step."""
    params, state, path = {"w": np.array([start])}, {}, []
    for g in gradients:
        params = optimizer.update(params, {"w": np.array([g])}, state)
        path.append(float(params["w"][0]))
    return path


def test_sgd_keeps_the_rate_outside_the_buffer():
    """Buffer 1, 1.9, 2.71; with the rate inside it the third weight would be -2.9."""
    params, state, path = {"w": np.zeros(1)}, {}, []
    optimizer = spec.SGD(momentum=0.9)
    for rate in (1.0, 0.1, 0.1):
        params = replace(optimizer, rate=rate).update(params, {"w": np.ones(1)}, state)
        path.append(params["w"].item())
    assert path == pytest.approx([-1.0, -1.19, -1.461], rel=1e-15)


def test_sgd_follows_a_changing_gradient():
    """Buffer 1, -1.5, 2.25."""
    path = run(spec.SGD(rate=0.1, momentum=0.5), [1.0, -2.0, 3.0], start=1.0)
    assert path == pytest.approx([0.9, 1.05, 0.825], rel=1e-15)


def test_sgd_without_momentum_forgets():
    assert run(spec.SGD(rate=0.5, momentum=0.0), [2.0, 2.0, -4.0]) == [-1.0, -2.0, 0.0]


@pytest.mark.parametrize(
    ("gradient", "path"),
    [(1e-8, [-0.0005, -0.001, -0.0015]), (1e-6, [-1e-3 / 1.01, -2e-3 / 1.01]), (-2.0, [1e-3 / (1 + 0.5e-8)])],
)
def test_adam_adds_epsilon_outside_the_corrected_root(gradient, path):
    """A constant gradient g moves by rate · g / (|g| + epsilon) at every step; the epsilon-hat variant does not."""
    assert run(spec.Adam(), [gradient] * len(path)) == pytest.approx(path, rel=1e-12)


def test_adam_s_first_step_falls_short_by_epsilon_over_the_gradient():
    assert run(spec.Adam(), [1e-6]) == pytest.approx([-9.9010e-4], rel=1e-5)


def test_adam_follows_a_sign_change():
    """m / (1 - beta1²) = -0.01 / 0.19 and v / (1 - beta2²) = 0.001999 / 0.001999."""
    path = run(spec.Adam(rate=0.1, epsilon=0.0), [1.0, -1.0])
    assert path == pytest.approx([-0.1, -0.1 + 0.1 / 19], rel=1e-13)


def test_adam_uses_each_beta_where_it_belongs():
    """m: 1/2, 5/4 of weight 3/4; v: 1/4, 19/16 of weight 7/16; steps 1 and (5/3) / (sqrt(19/7) + 1/2)."""
    path = run(spec.Adam(rate=1.0, beta1=0.5, beta2=0.75, epsilon=0.5), [1.0, 2.0])
    assert path == pytest.approx([-2 / 3, -2 / 3 - (5 / 3) / (math.sqrt(19 / 7) + 1 / 2)], rel=1e-14)


# Gradients 0.001, 0.5 and -0.25 from 1, at a rate of 0.045: what `tf.compat.v1.train.RMSPropOptimizer` computed in
# float32, and timm's and optax's that mean to be the same. PyTorch's own ends at 0.990145892, Keras' at 0.988822771.
TENSORFLOW = {
    "alone": (0.0, [0.999967354, 0.983357551, 0.991842983]),
    "with momentum": (0.9, [0.999967354, 0.983328169, 0.976838335]),
}


@pytest.mark.parametrize("name", TENSORFLOW)
def test_rmsprop_is_tensorflow_s(name):
    momentum, path = TENSORFLOW[name]
    optimizer = spec.RMSProp(rate=0.045, decay=0.9, momentum=momentum, epsilon=1.0)
    assert run(optimizer, [0.001, 0.5, -0.25], start=1.0) == pytest.approx(path, abs=5e-10)


def test_rmsprop_keeps_the_rate_inside_the_buffer():
    """Of TensorFlow too; with the rate outside the third weight would be 0.979696116."""
    params, state = {"w": np.ones(1)}, {}
    for rate, g in ((0.045, 0.001), (0.045, 0.5), (0.0045, -0.25)):
        params = spec.RMSProp(rate, momentum=0.9).update(params, {"w": np.array([g])}, state)
    assert params["w"].item() == pytest.approx(0.969201446, abs=5e-10)


def test_rmsprop_s_defaults_are_the_paper_s():
    assert spec.RMSProp() == spec.RMSProp(rate=0.045, decay=0.9, momentum=0.0, epsilon=1.0)


def test_rmsprop_adds_the_decay_to_the_gradient():
    """g 1 + 0.5 · 2 = 2, v 0.75 + 0.25 · 4 = 1.75, w 2 - 2 / sqrt(1.75 + 2.25)."""
    optimizer = spec.RMSProp(rate=1.0, decay=0.75, epsilon=2.25, weight_decay=0.5)
    new = optimizer.update({"fc.weight": np.array([2.0])}, {"fc.weight": np.ones(1)}, {})
    assert new["fc.weight"].item() == 1.0


# ------------------------------------------------------------------------------------------------------- average


def test_the_average_is_young_first_and_then_as_old_as_its_decay():
    """From 1, with the weights 0 and 11: d is 2/11, less than 0.2, and then 0.2, less than 3/12."""
    params, state, path = {"w": np.ones(1)}, {}, []
    for g in (1.0, -11.0):
        params = spec.SGD(rate=1.0, momentum=0.0, average=0.2).update(params, {"w": np.array([g])}, state)
        path.append(state["average/w"].item())
    assert params["w"].item() == 11.0
    assert path == pytest.approx([2 / 11, 0.2 * 2 / 11 + 0.8 * 11], rel=1e-14)
    assert state["t"] == 2


@pytest.mark.parametrize("kind", [spec.SGD, spec.RMSProp, spec.Adam, spec.AdamW])
def test_an_average_changes_no_step(kind):
    params, grads = {"fc.weight": np.array([1.0, 2.0])}, {"fc.weight": np.array([3.0, 4.0])}
    mine, yours = dict(params), dict(params)
    averaging, plain = {}, {}
    for _ in range(3):
        mine = kind(average=0.9).update(mine, grads, averaging)
        yours = kind().update(yours, grads, plain)
    np.testing.assert_array_equal(mine["fc.weight"], yours["fc.weight"])
    assert averaging.keys() - plain.keys() <= {"t", "average/fc.weight"}


def test_a_state_begins_as_an_update_begins_it():
    """Zeros, but for what RMSProp divides by and for the average; statistics have none."""
    params = {"a.weight": np.full(2, 3.0), "a.norm.running_mean": np.zeros(2)}
    state = spec.RMSProp(momentum=0.5, average=0.5).begin_state(params)
    assert {name: x.tolist() for name, x in state.items()} == {
        "t": 0.0,
        "v/a.weight": [1.0, 1.0],
        "momentum/a.weight": [0.0, 0.0],
        "average/a.weight": [3.0, 3.0],
    }
    assert not np.shares_memory(state["average/a.weight"], params["a.weight"])
    begun, fresh, grads = state, {}, {"a.weight": np.array([1.0, -2.0])}
    for state in (begun, fresh):
        spec.RMSProp(momentum=0.5, average=0.5).update(params, grads, state)
    assert {name: x.tolist() for name, x in begun.items()} == {name: x.tolist() for name, x in fresh.items()}


EVERY = [
    spec.SGD(),
    spec.SGD(momentum=0.0),
    spec.SGD(nesterov=True, weight_decay=0.1),
    spec.RMSProp(momentum=0.9, weight_decay=0.1),
    spec.Adam(),
    spec.AdamW(weight_decay=0.1),
    spec.RMSProp(average=0.9),
]


@pytest.mark.parametrize("optimizer", EVERY)
def test_every_element_steps_by_itself(optimizer):
    rng = np.random.default_rng(0)
    weights, gradients = rng.standard_normal((2, 3)), rng.standard_normal((4, 2, 3))
    params, state = {"w": weights}, {}
    for g in gradients:
        params = optimizer.update(params, {"w": g}, state)
    for place in np.ndindex(2, 3):
        assert run(optimizer, gradients[:, *place], weights[place])[-1] == params["w"][place]


@pytest.mark.parametrize("optimizer", EVERY)
class TestState:
    params = {"a": np.array([1.0, -2.0]), "b": np.array([[3.0]]), "untrained": np.array([5.0])}  # noqa: RUF012
    grads = {"a": np.array([0.5, 0.25]), "b": np.array([[-1.0]])}  # noqa: RUF012

    def test_belongs_to_the_caller(self, optimizer):
        """Two runs of one optimizer do not see each other; a fresh state starts anew."""
        mine, yours = {}, {}
        first = optimizer.update(self.params, self.grads, mine)
        second = optimizer.update(self.params, self.grads, mine)
        again = optimizer.update(self.params, self.grads, yours)
        assert set(mine) == set(yours)
        for name in self.grads:
            np.testing.assert_array_equal(again[name], first[name])
        if "t" in optimizer.slots:
            assert (mine["t"], yours["t"]) == (2, 1)
        elif optimizer.momentum:
            assert not np.array_equal(first["a"], second["a"])
        else:
            assert mine == {}

    def test_has_an_array_of_each_slot_and_trained_array(self, optimizer):
        state = {}
        optimizer.update(self.params, self.grads, state)
        slots = [slot for slot in optimizer.slots if slot != "t"]
        expected = {f"{slot}/{name}": g.shape for slot in slots for name, g in self.grads.items()}
        expected |= {"t": ()} if "t" in optimizer.slots else {}
        assert {name: array.shape for name, array in state.items()} == expected
        assert all(isinstance(array, np.ndarray) for array in state.values())

    def test_resumes_a_run(self, optimizer):
        """From copies of the parameters and the state the run goes on to the same bits."""
        straight, state, stopped = self.params, {}, None
        for step in range(4):
            if step == 2:
                stopped = dict(straight), {name: array.copy() for name, array in state.items()}
            straight = self.params | optimizer.update(straight, self.grads, state)
        resumed, state = stopped
        for _ in range(2):
            resumed = self.params | optimizer.update(resumed, self.grads, state)
        for name, array in straight.items():
            np.testing.assert_array_equal(resumed[name], array)

    def test_has_no_part_in_other_arrays(self, optimizer):
        """A run of `a` alone is the same as a run of `a` beside `b`."""
        alone, beside = {}, {}
        for _ in range(3):
            a = optimizer.update(self.params, {"a": self.grads["a"]}, alone)
            both = optimizer.update(self.params, self.grads, beside)
        assert list(a) == ["a"]
        assert list(both) == ["a", "b"]
        np.testing.assert_array_equal(a["a"], both["a"])

    def test_is_all_that_an_update_changes(self, optimizer):
        params, grads = ({k: v.copy() for k, v in arrays.items()} for arrays in (self.params, self.grads))
        for array in (*params.values(), *grads.values()):
            array.setflags(write=False)
        new, state = params, {}
        for _ in range(3):
            new = optimizer.update(new, grads, state)
        assert list(params) == list(self.params)
        assert list(grads) == list(self.grads)
        for name, array in new.items():
            np.testing.assert_array_equal(params[name], self.params[name])
            np.testing.assert_array_equal(grads[name], self.grads[name])
            assert array.dtype == np.float64
            assert not np.shares_memory(array, params[name])
        for slot in state.values():
            assert not any(np.shares_memory(slot, array) for array in (*grads.values(), *params.values()))

    def test_is_not_in_the_optimizer(self, optimizer):
        with pytest.raises(FrozenInstanceError):
            optimizer.rate = 1.0


def test_the_rate_of_adam_may_change_between_steps():
    params, state, path = {"w": np.zeros(1)}, {}, []
    for rate in (1.0, 0.1):
        params = spec.Adam(rate=rate, epsilon=0.0).update(params, {"w": np.ones(1)}, state)
        path.append(params["w"].item())
    assert path == pytest.approx([-1.0, -1.1], rel=1e-13)


# ------------------------------------------------------------------------------------------------------ Nesterov


def test_nesterov_looks_one_buffer_ahead():
    """Buffer 1, -1.5, 2.25; steps g + b / 2: 1.5, -2.75, 4.125."""
    path = run(spec.SGD(rate=0.1, momentum=0.5, nesterov=True), [1.0, -2.0, 3.0], start=1.0)
    assert path == pytest.approx([0.85, 1.125, 0.7125], rel=1e-14)


def test_nesterov_keeps_the_same_buffer_as_plain_momentum():
    buffers = []
    for nesterov in (False, True):
        state = {}
        for g in (1.0, -2.0):
            spec.SGD(momentum=0.5, nesterov=nesterov).update({"w": np.zeros(1)}, {"w": np.array([g])}, state)
        buffers.append(state["momentum/w"].item())
    assert buffers == [-1.5, -1.5]


# -------------------------------------------------------------------------------------------------- weight decay


def test_sgd_adds_the_decay_to_the_gradient():
    """g 1 + 0.5 · 2 = 2, w 1.8; g 1 + 0.5 · 1.8 = 1.9, buffer 2.9, w 1.51."""
    params, state, path = {"fc.weight": np.array([2.0])}, {}, []
    for _ in range(2):
        optimizer = spec.SGD(rate=0.1, momentum=0.5, weight_decay=0.5)
        params = optimizer.update(params, {"fc.weight": np.ones(1)}, state)
        path.append(params["fc.weight"].item())
    assert path == pytest.approx([1.8, 1.51], rel=1e-14)
    assert state["momentum/fc.weight"].item() == pytest.approx(2.9, rel=1e-14)


def test_nesterov_sees_the_decay_twice():
    """g 1 + 0.5 · 2 = 2, buffer 2, step 2 + 0.5 · 2 = 3."""
    optimizer = spec.SGD(rate=0.1, momentum=0.5, nesterov=True, weight_decay=0.5)
    new = optimizer.update({"fc.weight": np.array([2.0])}, {"fc.weight": np.ones(1)}, {})
    assert new["fc.weight"].item() == pytest.approx(1.7, rel=1e-14)


def test_adamw_decays_the_weight_and_not_the_gradient():
    """A constant gradient moves by the rate; before that the weight is 0.95 of itself: 0.95 · 2 - 0.1 = 1.8, 1.61."""
    optimizer = spec.AdamW(rate=0.1, epsilon=1e-30, weight_decay=0.5)
    params, state, path = {"fc.weight": np.array([2.0])}, {}, []
    for _ in range(2):
        params = optimizer.update(params, {"fc.weight": np.full(1, 3.0)}, state)
        path.append(params["fc.weight"].item())
    assert path == pytest.approx([1.8, 1.61], rel=1e-14)
    assert state["m/fc.weight"].item() == pytest.approx(3 * 0.19, rel=1e-14)  # no decay in the moments


def test_adamw_decays_by_the_rate_of_the_step():
    """The decay shrinks with a schedule: 1 - 0.01 · 0.5."""
    optimizer = replace(spec.AdamW(rate=0.1, weight_decay=0.5), rate=0.01)
    new = optimizer.update({"fc.weight": np.array([2.0])}, {"fc.weight": np.zeros(1)}, {})
    assert new["fc.weight"].item() == pytest.approx(1.99, rel=1e-14)


def test_adamw_without_decay_is_adam():
    rng = np.random.default_rng(3)
    params, mine, yours = {"fc.weight": rng.standard_normal((3, 2))}, {}, {}
    other = params
    for _ in range(3):
        grads = {"fc.weight": rng.standard_normal((3, 2))}
        params = spec.AdamW(weight_decay=0.0).update(params, grads, mine)
        other = spec.Adam().update(other, grads, yours)
        np.testing.assert_array_equal(params["fc.weight"], other["fc.weight"])
    assert mine.keys() == yours.keys()


WHAT_IS_DECAYED = {
    "conv1.weight": True,
    "inception3a.branch5x5_reduce.weight": True,
    "aux1.fc1.weight": True,
    "fc.weight": True,
    "fc.bias": False,
    "conv1.norm.weight": False,
    "conv1.norm.bias": False,
}


@pytest.mark.parametrize("name", WHAT_IS_DECAYED)
@pytest.mark.parametrize("kind", [spec.SGD, spec.RMSProp, spec.AdamW])
def test_only_weights_are_decayed(kind, name):
    params, grads = {name: np.array([3.0, -2.0])}, {name: np.array([0.5, 1.0])}
    with_decay, without = (kind(weight_decay=decay).update(params, grads, {})[name] for decay in (0.1, 0.0))
    assert np.array_equal(with_decay, without) is not WHAT_IS_DECAYED[name]
    assert spec.is_decayed(name) is WHAT_IS_DECAYED[name]


def test_every_array_of_every_network_is_decayed_or_not():
    """Convolutions and dense layers are, by their number of dimensions; nothing of one dimension is."""
    for config in spec.PRESETS.values():
        for name, shape in spec.param_shapes(config).items():
            assert spec.is_decayed(name) is (len(shape) > 1), name


# ------------------------------------------------------------------------------------------------------ clipping


def test_clip_scales_all_gradients_by_one_factor():
    """Norm of 3, 4 and 12 together: 13; down to 6.5 they are halved."""
    grads = {"a": np.array([3.0, 4.0]), "b": np.array([[12.0]])}
    clipped = clip(grads, 6.5)
    assert list(clipped) == ["a", "b"]
    np.testing.assert_array_equal(clipped["a"], [1.5, 2.0])
    np.testing.assert_array_equal(clipped["b"], [[6.0]])


def test_clip_adds_nothing_to_the_denominator():
    """A tiny norm is where PyTorch's 1e-6 and Gluon's 1e-8 would show."""
    clipped = clip({"a": np.array([3e-8, 4e-8])}, 1e-8)
    np.testing.assert_allclose(clipped["a"], [6e-9, 8e-9], rtol=1e-15)


@pytest.mark.parametrize("norm", [None, 5.0, 5.1, math.inf])
def test_clip_leaves_small_gradients_bit_for_bit(norm):
    grads = {"a": np.array([3.0, -0.0]), "b": np.array([4.0, 5e-324])}
    clipped = clip(grads, norm)
    assert {name: g.tobytes() for name, g in clipped.items()} == {name: g.tobytes() for name, g in grads.items()}


@pytest.mark.parametrize("norm", [None, 1.0])
def test_clip_leaves_zeros_zero(norm):
    np.testing.assert_array_equal(clip({"a": np.zeros(3)}, norm)["a"], np.zeros(3))
    assert clip({}, norm) == {}


def test_clip_keeps_the_precision_and_measures_in_float64():
    """In float32 the squares would be zero."""
    clipped = clip({"a": np.array([3e-30, 4e-30], np.float32)}, 2.5e-30)["a"]
    assert clipped.dtype == np.float32
    np.testing.assert_allclose(clipped, [1.5e-30, 2e-30], rtol=1e-6)


def test_clip_leaves_the_caller_s_arrays_as_they_were():
    grads = {"a": np.array([3.0, 4.0])}
    grads["a"].setflags(write=False)
    assert clip(grads, 1.0) is not grads
    assert clip(grads, None) is not grads
    np.testing.assert_array_equal(grads["a"], [3, 4])


def test_clip_brings_each_number_into_its_bounds_and_then_measures_the_norm():
    """-2, 2 and 1 have a norm of 3."""
    grads = {"a": np.array([-7.0, 2.5]), "b": np.array([[1.0]])}
    clipped = clip(grads, value=2.0)
    assert {name: g.tolist() for name, g in clipped.items()} == {"a": [-2.0, 2.0], "b": [[1.0]]}
    both = clip(grads, norm=1.5, value=2.0)
    assert {name: g.tolist() for name, g in both.items()} == {"a": [-1.0, 1.0], "b": [[0.5]]}
    assert grads["a"].tolist() == [-7.0, 2.5]


@pytest.mark.parametrize("kind", [spec.SGD, spec.RMSProp, spec.Adam, spec.AdamW])
def test_an_optimizer_clips_before_anything_else(kind):
    """The state too sees only what is left; the decay comes after, and is not clipped."""
    decay = {} if kind is spec.Adam else {"weight_decay": 0.5}
    params, grads = {"fc.weight": np.array([1.0, 2.0])}, {"fc.weight": np.array([3.0, 4.0])}
    mine, yours = {}, {}
    clipping = kind(clip_norm=2.5, **decay).update(params, grads, mine)
    clipped = kind(**decay).update(params, {"fc.weight": grads["fc.weight"] / 2}, yours)
    np.testing.assert_array_equal(clipping["fc.weight"], clipped["fc.weight"])
    assert {name: array.tolist() for name, array in mine.items()} == {n: array.tolist() for n, array in yours.items()}


# -------------------------------------------------------------------------------------------- names of the state


@pytest.mark.parametrize(
    ("optimizer", "slots"),
    [
        (spec.SGD(), ("momentum",)),
        (spec.SGD(momentum=0.0), ()),
        (spec.SGD(momentum=0.0, average=0.9), ("t", "average")),
        (spec.RMSProp(), ("v",)),
        (spec.RMSProp(momentum=0.9), ("v", "momentum")),
        (spec.AdamW(average=0.9), ("t", "m", "v", "average")),
        (spec.Adam(), ("t", "m", "v")),
        (spec.AdamW(), ("t", "m", "v")),
    ],
)
def test_a_state_of_a_network_has_the_canonical_names(optimizer, slots):
    config = spec.preset("torchvision", num_classes=2, aux=False)
    trained = {n: np.ones(shape) for n, shape in spec.param_shapes(config).items() if not spec.is_statistic(n)}
    state = {}
    optimizer.update(trained, trained, state)
    assert optimizer.slots == slots
    assert {name: array.shape for name, array in state.items()} == spec.state_shapes(config, slots)
    spec.check_state(config, slots, state)


def test_state_has_an_array_for_each_slot_and_trained_array():
    config = spec.preset("torchvision")
    shapes = spec.state_shapes(config, ("t", "m", "v"))
    trained = [name for name in spec.param_shapes(config) if not spec.is_statistic(name)]
    assert list(shapes) == ["t", *(f"m/{name}" for name in trained), *(f"v/{name}" for name in trained)]
    assert (shapes["t"], shapes["v/conv1.weight"], shapes["m/conv1.norm.bias"]) == ((), (64, 3, 7, 7), (64,))
    assert spec.state_shapes(config, ()) == {}


def test_check_state_names_every_mismatch_at_once():
    config = spec.preset("d2l")
    state = {name: np.zeros(shape, np.float32) for name, shape in spec.state_shapes(config, ("momentum",)).items()}
    spec.check_state(config, ("momentum",), state)
    del state["momentum/fc.bias"]
    state["t"] = np.zeros(())
    state["momentum/conv1.weight"] = state["momentum/conv1.weight"].transpose(2, 3, 1, 0)
    state["momentum/conv1.bias"] = np.full(64, np.nan)
    state["momentum/conv2.bias"] = np.zeros(192, int)
    with pytest.raises(spec.InvalidInput) as caught:
        spec.check_state(config, ("momentum",), state)
    hint = "this looks like HWIO (JAX, TensorFlow): canonical is OIHW, transpose(3, 2, 0, 1)"
    assert str(caught.value).splitlines() == [
        "optimizer state (slots: momentum) does not fit preset d2l (in_channels=1, num_classes=10):",
        "  missing (1):",
        "    momentum/fc.bias (10,)",
        "  unexpected (1):",
        "    t ()",
        "  wrong shape (1):",
        f"    momentum/conv1.weight: expected (64, 1, 7, 7), got (7, 7, 1, 64); {hint}",
        "  wrong type (1):",
        "    momentum/conv2.bias: expected floating point, got int64",
        "  NaN or infinity (1):",
        "    momentum/conv1.bias",
    ]


def test_check_state_lets_an_optimizer_without_slots_have_no_array():
    spec.check_state(spec.preset("d2l"), (), {})
    with pytest.raises(spec.InvalidInput, match=r"optimizer state \(slots: none\) .*\n  unexpected \(1\):\n    t \(\)"):
        spec.check_state(spec.preset("d2l"), (), {"t": np.zeros(())})
