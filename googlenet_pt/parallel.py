"""Training in PyTorch on several devices: DistributedDataParallel, a process for each device.

Every process runs the same loop and takes its share of each batch; the gradients are averaged while they are computed.
The processes find each other as under ``torchrun``: RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR and
MASTER_PORT. Batch norm normalizes each share by itself, and the running statistics kept are the first process's.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

import googlenet_pt
import harness.backends.team
import spec
from googlenet_pt.device import select_device
from googlenet_pt.network import Network
from googlenet_pt.optimizer import make_optimizer
from googlenet_pt.train import masks_to_device, step, to_device
from harness.backends.team import check_shares, shares

_PATIENCE = timedelta(minutes=10)  # for a process that no longer answers; one that has ended is noticed at once


class Replica(DistributedDataParallel):
    """The model of one process; gradients are means over the whole batch, however it is shared."""

    def __init__(self, model: Network) -> None:
        # Batch norm's statistics stay each process's own.
        super().__init__(model, broadcast_buffers=False, gradient_as_bucket_view=True)
        self.weight = 1.0  # of this process's mean in that of the batch
        self.register_comm_hook(None, self._weighted_sum)

    @property
    def config(self) -> spec.Config:
        """The model's configuration."""
        return self.module.config

    @property
    def tf32(self) -> bool:
        """Whether the model rounds to TF32."""
        return self.module.tf32

    def _weighted_sum(self, _, bucket):  # PyTorch refuses annotations that are not evaluated
        """Adds up a bucket of gradients over the processes, as soon as they are computed."""
        work = dist.all_reduce(bucket.buffer().mul_(self.weight), async_op=True)
        return work.get_future().then(lambda done: done.value()[0])


class Team(harness.backends.team.Team):
    """The processes of a run, of which this is one; see `harness.backends.team.Team`."""

    def __init__(self, device: str, devices: int) -> None:
        super().__init__(googlenet_pt)
        self.rank, self.processes = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        here, local = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
        self.devices = self.processes
        if devices != local:
            raise spec.InvalidInput(f"--devices: {local} processes were started on this machine, got {devices}")
        on_gpus = select_device(device).type == "cuda"
        if on_gpus and local > torch.cuda.device_count():
            raise spec.InvalidInput(
                f"--devices: expected at most {torch.cuda.device_count()}, the GPUs that PyTorch finds here, got "
                f"{local}; or take --device cpu"
            )
        if on_gpus:
            torch.cuda.set_device(here)
        # The processes exchange arrays on the CPU too, also where the gradients are on GPUs.
        dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpus else "gloo", timeout=_PATIENCE)

    def __exit__(self, *error: object) -> None:
        """Leave the others."""
        dist.destroy_process_group()

    def check(self, config: spec.Config, batch: int, last: int, size: int) -> None:
        """Make sure, before training, that the devices can share the batches."""
        check_shares(config, (batch, last), size, self.devices)

    def total(self, values: Sequence[float]) -> Sequence[float]:
        """The sums over all processes, each of which must call this; it waits for the last one."""
        tensor = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(tensor)
        return tensor.tolist()

    def make_optimizer(self, model: Network, optimizer: spec.Optimizer) -> torch.optim.Optimizer:
        """The optimizer; from now on the model is a replica."""
        self.replica = Replica(model)
        return make_optimizer(model, optimizer)

    def train_step(
        self,
        model: Network,
        optimizer: torch.optim.Optimizer,
        images: spec.Array,
        labels: spec.Array,
        masks: spec.Arrays,
        scale: float = 1.0,
    ) -> spec.Step:
        """One step on a batch, of which this process takes its share; loss and hits are the whole batch's."""
        rows, count = shares(len(images), self.devices)[self.rank]
        x, y = to_device(model, images[rows], labels[rows])
        shared = masks_to_device(model, {stage: mask[rows] for stage, mask in masks.items()})
        weight = self.replica.weight = count / len(images)
        share = step(self.replica, optimizer, x, y, shared, scale)
        sums = torch.stack([share.loss.double() * weight, share.correct.double() * (count > 0)])
        dist.all_reduce(sums)
        return spec.Step(sums[0], sums[1])
