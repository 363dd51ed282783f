"""Training in MXNet on several devices: one process, a context for each device, a key-value store that adds gradients.

Each context has a copy of the parameters and takes its share of each batch. The store (``device``; ``dist_sync`` where
several machines train together, as DMLC_ROLE=worker and its companions say) adds up the gradients, the first context is
updated, and the others copy it. Batch norm normalizes each share by itself, and the running statistics kept are those
of the first share.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

import mxnet as mx
from mxnet import autograd, gluon, nd

import googlenet_mx
import harness.backends.team
import spec
from googlenet_mx.build import build
from googlenet_mx.device import select_device
from googlenet_mx.network import Network
from googlenet_mx.optimizer import clip, make_optimizer
from googlenet_mx.train import loss, masks_to_device, to_device
from harness.backends.team import check_shares, processes, shares

_TOTAL = 1 << 20  # key of `Team.total` in the store; gradients have the keys from 0


class Trainer(gluon.Trainer):
    """Gluon's trainer, but for this: only the first context has an optimizer's state, and the others copy the result.

    That is what Gluon does by itself when it leaves the update to the store; but then there is no place for clipping.
    """

    def __init__(self, model: Network, optimizer: mx.optimizer.Optimizer, store: str | mx.kvstore.KVStore) -> None:
        super().__init__(model.collect_params(), optimizer, kvstore=store, update_on_kvstore=False)
        self._updaters = self._updaters[:1]

    def step(self) -> None:
        """Update with the gradients of all contexts and machines."""
        self.allreduce_grads()
        clip(self)
        self.update(1)  # each loss is already a mean, weighted
        for parameter in self._params:
            first, *others = parameter.list_data()
            for copy in others:
                first.copyto(copy)


class Team(harness.backends.team.Team):
    """The contexts of a run, and the machines; see `harness.backends.team.Team`."""

    def __init__(self, device: str, devices: int) -> None:
        super().__init__(googlenet_mx)
        if select_device(device).device_type == "gpu":
            if devices > mx.context.num_gpus():
                raise spec.InvalidInput(
                    f"--devices: expected at most {mx.context.num_gpus()}, the GPUs that MXNet finds here, got "
                    f"{devices}; or take --device cpu"
                )
            self.contexts = [mx.gpu(i) for i in range(devices)]
        else:
            self.contexts = [mx.cpu(i) for i in range(devices)]
        self.store: str | mx.kvstore.KVStore = "device"
        if processes("mx") > 1:
            self.store = mx.kv.create("dist_sync")
            self.rank, self.processes = self.store.rank, self.store.num_workers
            self.store.init(_TOTAL, nd.zeros(64, dtype="float64"))
        self.devices = self.processes * devices
        self.scope = ExitStack()

    def __enter__(self) -> Team:
        # The default context is the first one: the package's functions then work on its copy.
        self.scope.enter_context(self.contexts[0])
        return self

    def __exit__(self, *error: object) -> None:
        """Leave the others."""
        self.scope.close()

    def check(self, config: spec.Config, batch: int, last: int, size: int) -> None:
        """Make sure, before training, that the devices can share the batches."""
        check_shares(config, (batch, last), size, self.devices)

    def total(self, values: Sequence[float]) -> Sequence[float]:
        """The sums over all processes, each of which must call this; it waits for the last one."""
        if self.processes == 1:
            return values
        array = nd.zeros(64, dtype="float64")
        array[: len(values)] = nd.array(values, dtype="float64")
        self.store.push(_TOTAL, array)
        self.store.pull(_TOTAL, out=array)
        return array[: len(values)].asnumpy().tolist()

    def build(self, config: spec.Config, dtype: str, device: str, params: spec.Arrays) -> Network:
        """The network, with a copy of its parameters in every context."""
        model = build(config, dtype, device, params=params)
        model.collect_params().reset_ctx(self.contexts)
        return model

    def make_optimizer(self, model: Network, optimizer: spec.Optimizer) -> Trainer:
        """A trainer that adds the gradients of all contexts."""
        return Trainer(model, make_optimizer(model, optimizer).optimizer, self.store)

    def train_step(
        self,
        model: Network,
        optimizer: Trainer,
        images: spec.Array,
        labels: spec.Array,
        masks: spec.Arrays,
        scale: float = 1.0,
    ) -> spec.Step:
        """One step on a batch, of which each context takes its share; loss and hits are the whole batch's."""
        first = self.rank * len(self.contexts)
        parts = shares(len(images), self.devices)[first : first + len(self.contexts)]
        values, correct, statistics = [], [], []
        for context, (rows, count) in zip(self.contexts, parts, strict=True):
            with context:
                x, y = to_device(model, images[rows], labels[rows])
                shared = masks_to_device(model, {stage: mask[rows] for stage, mask in masks.items()})
                with autograd.record():
                    ends, batch = model.training_pass(x, *model.training_pass.masks(x, shared))
                    outputs = model.training_pass.outputs(ends)
                    values.append(loss(model.config, outputs, y) * (count / len(images)))
                correct.append((outputs.logits.argmax(axis=1) == y).sum() * (count > 0))
                statistics.append(batch)
        autograd.backward(values, [value.ones_like() * scale for value in values])
        for norm, batch in zip(model.training_pass.norms(), statistics[0], strict=True):
            norm.update(*batch)
        optimizer.step()
        sums = [nd.add_n(*[x.as_in_context(self.contexts[0]) for x in parts]) for parts in (values, correct)]
        if self.processes > 1:
            return spec.Step(*self.total([x.asscalar() for x in sums]))
        return spec.Step(*(x.as_np_ndarray() for x in sums))  # which float() can read
