"""One step of each optimizer against sequences worked out by hand."""

import math
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest

import spec


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


def test_adam_first_step_at_1e_6():
    assert run(spec.Adam(), [1e-6]) == pytest.approx([-9.9010e-4], rel=1e-5)


def test_adam_follows_a_sign_change():
    """m / (1 - beta1²) = -0.01 / 0.19 and v / (1 - beta2²) = 0.001999 / 0.001999."""
    path = run(spec.Adam(rate=0.1, epsilon=0.0), [1.0, -1.0])
    assert path == pytest.approx([-0.1, -0.1 + 0.1 / 19], rel=1e-13)


def test_adam_uses_each_beta_where_it_belongs():
    """m: 1/2, 5/4 of weight 3/4; v: 1/4, 19/16 of weight 7/16; steps 1 and (5/3) / (sqrt(19/7) + 1/2)."""
    path = run(spec.Adam(rate=1.0, beta1=0.5, beta2=0.75, epsilon=0.5), [1.0, 2.0])
    assert path == pytest.approx([-2 / 3, -2 / 3 - (5 / 3) / (math.sqrt(19 / 7) + 1 / 2)], rel=1e-14)


@pytest.mark.parametrize("optimizer", [spec.SGD(), spec.Adam()])
def test_every_element_steps_by_itself(optimizer):
    rng = np.random.default_rng(0)
    weights, gradients = rng.standard_normal((2, 3)), rng.standard_normal((4, 2, 3))
    params, state = {"w": weights}, {}
    for g in gradients:
        params = optimizer.update(params, {"w": g}, state)
    for place in np.ndindex(2, 3):
        assert run(optimizer, gradients[:, *place], weights[place])[-1] == params["w"][place]


@pytest.mark.parametrize("optimizer", [spec.SGD(), spec.Adam()])
class TestState:
    params = {"a": np.array([1.0, -2.0]), "b": np.array([[3.0]]), "untrained": np.array([5.0])}  # noqa: RUF012
    grads = {"a": np.array([0.5, 0.25]), "b": np.array([[-1.0]])}  # noqa: RUF012

    def test_belongs_to_the_caller(self, optimizer):
        """Two runs of one optimizer do not see each other; a fresh state starts anew."""
        mine, yours = {}, {}
        first = optimizer.update(self.params, self.grads, mine)
        second = optimizer.update(self.params, self.grads, mine)
        again = optimizer.update(self.params, self.grads, yours)
        assert set(mine) == set(yours) == set(self.grads)
        for name in self.grads:
            np.testing.assert_array_equal(again[name], first[name])
        if isinstance(optimizer, spec.SGD):
            assert not np.array_equal(first["a"], second["a"])
        else:
            assert (mine["a"]["t"], yours["a"]["t"]) == (2, 1)

    def test_has_no_part_in_other_arrays(self, optimizer):
        """A run of `a` alone is the same as a run of `a` beside `b`."""
        alone, beside = {}, {}
        for _ in range(3):
            a = optimizer.update(self.params, {"a": self.grads["a"]}, alone)
            both = optimizer.update(self.params, self.grads, beside)
        assert list(a) == ["a"]
        assert list(both) == ["a", "b"]
        np.testing.assert_array_equal(a["a"], both["a"])

    def test_alone_changes(self, optimizer):
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
            assert not any(np.shares_memory(slot, grads[name]) for slot in state[name].values())

    def test_is_not_in_the_optimizer(self, optimizer):
        with pytest.raises(FrozenInstanceError):
            optimizer.rate = 1.0


def test_the_rate_of_adam_may_change_between_steps():
    params, state, path = {"w": np.zeros(1)}, {}, []
    for rate in (1.0, 0.1):
        params = spec.Adam(rate=rate, epsilon=0.0).update(params, {"w": np.ones(1)}, state)
        path.append(params["w"].item())
    assert path == pytest.approx([-1.0, -1.1], rel=1e-13)
