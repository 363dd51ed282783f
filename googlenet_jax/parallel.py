"""Training in JAX on several devices: one program on a mesh of them, compiled by the same `jit`.

Parameters are on every device, a batch is split; what has to be added up, and where, the compiler finds out. It is the
program of the whole batch, batch norm included. A batch that the devices cannot split evenly, as the last one of an
epoch, is computed whole by each. Several machines find each other by JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and
JAX_PROCESS_ID.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import jax
import numpy as np
from flax import nnx
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import googlenet_jax
import harness.backends.team
import spec
from googlenet_jax.build import build
from googlenet_jax.device import select_device
from googlenet_jax.network import Network
from googlenet_jax.optimizer import make_optimizer
from googlenet_jax.predict import predict
from googlenet_jax.train import masks_to_device, to_device, update
from harness.backends.team import processes


class Team(harness.backends.team.Team):
    """The mesh of a run; see `harness.backends.team.Team`."""

    def __init__(self, device: str, devices: int) -> None:
        super().__init__(googlenet_jax)
        if processes("jax") > 1:
            jax.distributed.initialize(
                os.environ["JAX_COORDINATOR_ADDRESS"], processes("jax"), int(os.environ["JAX_PROCESS_ID"])
            )
            self.rank, self.processes = jax.process_index(), jax.process_count()
        platform = select_device(device).platform
        local = jax.local_devices(backend=platform)
        if devices > len(local):
            remedy = "or take --device cpu" if platform == "gpu" else f"set JAX_NUM_CPU_DEVICES={devices}"
            raise spec.InvalidInput(
                f"--devices: expected at most {len(local)}, what JAX finds here ({platform}), got {devices}; {remedy}"
            )
        self.first = local[0]
        ids = {process: [] for process in range(self.processes)}
        for each in jax.devices(platform):
            ids[each.process_index].append(each)
        chosen = [each for process in ids.values() for each in process[:devices]]
        self.devices = len(chosen)
        mesh = Mesh(np.array(chosen), ("batch",))
        self.everywhere = NamedSharding(mesh, PartitionSpec())
        self.split = NamedSharding(mesh, PartitionSpec("batch"))

    def __exit__(self, *error: object) -> None:
        """Leave the others."""
        if self.processes > 1:
            jax.distributed.shutdown()

    def check(self, config: spec.Config, batch: int, last: int, size: int) -> None:
        """Make sure, before training, that the devices can share the batches."""
        if batch % self.devices:
            raise spec.InvalidInput(
                f"--devices: JAX splits a batch evenly or not at all: {batch} images cannot be split over "
                f"{self.devices} devices; take another --batch"
            )

    def total(self, values: Sequence[float]) -> Sequence[float]:
        """The sums over all processes, each of which must call this; it waits for the last one."""
        if self.processes == 1:
            return values
        # In halves: without float64 switched on JAX has no numbers that hold them whole.
        parts = np.array([divmod(int(value), 1 << 16) for value in values], np.int32)
        high, low = multihost_utils.process_allgather(parts).astype(np.int64).sum(0).T
        return ((high << 16) + low).tolist()

    def build(self, config: spec.Config, dtype: str, device: str, params: spec.Arrays) -> Network:
        """The network, with its parameters on every device."""
        model = build(config, dtype, device, params=params)
        nnx.update(model, self._spread(nnx.state(model)))
        model.device = self.everywhere
        return model

    def make_optimizer(self, model: Network, optimizer: spec.Optimizer) -> nnx.Optimizer:
        """The optimizer, with its state on every device."""
        native = make_optimizer(self._on_one(model), optimizer)
        nnx.update(native, self._spread(nnx.state(native)))
        return native

    def train_step(
        self,
        model: Network,
        optimizer: nnx.Optimizer,
        images: spec.Array,
        labels: spec.Array,
        masks: spec.Arrays,
        scale: float = 1.0,
    ) -> spec.Step:
        """One step on a batch, split where that is possible."""
        model.device = self.everywhere if len(images) % self.devices else self.split
        x, y = to_device(model, images, labels)
        spread = masks_to_device(model, masks)
        model.device = self.everywhere  # a part of what is compiled: always the same
        return update(model, optimizer, x, y, spread, scale)

    def predict(self, model: Network, images: spec.Array) -> spec.Array:
        """Logits (N, num_classes), computed on one device."""
        return predict(self._on_one(model), images)

    def _on_one(self, model: Network) -> Network:
        """The model on this process's first device, in the same memory."""
        graph, state = nnx.split(model)
        one = nnx.merge(graph, jax.tree.map(lambda x: x.addressable_data(0), state))
        one.device = self.first
        return one

    def _spread(self, state: nnx.State) -> nnx.State:
        """The arrays, which this process's first device has, on every device of the mesh."""
        local = [device for device in self.everywhere.mesh.devices.flat if device.process_index == self.rank]

        def spread(x: jax.Array) -> jax.Array:
            copies = [jax.device_put(x, device) for device in local]
            return jax.make_array_from_single_device_arrays(x.shape, self.everywhere, copies)

        return jax.tree.map(spread, state)
