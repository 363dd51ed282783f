"""The base of every network in Flax NNX. Arrays are (N, H, W, C)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
from flax import nnx

import spec
from googlenet_jax.device import parameter_dtype, select_device, select_dtype, select_precision
from googlenet_jax.layers import Conv, Dense, Dropout
from googlenet_jax.params import load_params

Masks = Mapping[str, jax.Array]  # what dropout keeps, by stage
Watch = Callable[[str, jax.Array], jax.Array]  # takes every stage's name and output, and returns the output


def ignore(stage: str, x: jax.Array) -> jax.Array:
    """Watch nothing."""
    return x


class Network(nnx.Module):
    """A network of a `spec.Config`.

    In training mode (``model.train()``) the auxiliary heads run as well, where there are some. A new model is in
    inference mode. Dropout keeps what `masks` says (see `spec.dropout_masks`), or draws from a generator of the model's
    own.
    """

    def __init__(self, config: spec.Config) -> None:
        if config.family != type(self).__name__:
            raise spec.InvalidInput(f"{type(self).__name__} is not the network of {config}: build(config) makes that")
        self.config = config
        self.deterministic = True  # false in training mode: `train()` sets it, as it does in every dropout

    def finish(
        self,
        dtype: str = "float32",
        device: str = "auto",
        seed: int = 0,
        params: spec.Arrays | None = None,
        *,
        tuned: bool = True,
    ) -> None:
        """Give the layers their dtype, device and parameters.

        Args:
            dtype: ``float32``, ``tf32``, ``float64`` or ``bfloat16``, to compute in. With tf32, which rounds what
                convolutions and products read, and with bfloat16 parameters are float32.
            device: ``auto`` (a GPU where there is one), ``cpu`` or ``gpu``.
            seed: Of dropout, and of `spec.init_params` where no parameters are given.
            params: By canonical name.
            tuned: False leaves out everything that is there for speed.

        Raises:
            spec.InvalidInput: for a device that is not there, an unknown dtype, or parameters that do not fit.
        """
        from googlenet_jax.fast_cpu import make_fast  # which knows the networks

        self.dtype = select_dtype(dtype)
        self.stored_dtype = parameter_dtype(self.dtype)
        self.device = select_device(device)
        precision = select_precision(dtype, self.device)
        rngs = nnx.Rngs(seed)
        for _, part in nnx.iter_graph(self):
            if isinstance(part, Conv | Dense):
                part.dtype, part.precision = self.dtype, precision
            elif isinstance(part, Dropout):
                part.rngs = rngs.dropout.fork()
        if tuned and self.device.platform == "cpu":
            make_fast(self)
        nnx.update(self, jax.device_put(nnx.state(self), self.device))  # dropout's generators too
        load_params(self, spec.init_params(self.config, seed) if params is None else params)

    def runs_heads(self, watch: Watch) -> bool:
        """Whether the auxiliary heads run: in training, and where the stages are watched."""
        return self.config.aux and (not self.deterministic or watch is not ignore)

    def __call__(self, x: jax.Array, masks: Masks | None = None, watch: Watch = ignore) -> spec.Outputs:
        """Images (N, H, W, C) to logits (N, num_classes); in training mode those of the auxiliary heads too."""
        logits, heads = self.forward(x, masks or {}, watch)
        return spec.Outputs(logits.astype(x.dtype), {name: y.astype(x.dtype) for name, y in heads.items()})

    def forward(self, x: jax.Array, masks: Masks, watch: Watch) -> spec.Outputs:
        """Every stage, in the dtype that it computes in."""
        raise NotImplementedError
