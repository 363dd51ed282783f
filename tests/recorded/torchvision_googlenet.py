"""What torchvision's own GoogLeNet computes, recorded: its names, its shapes, its logits.

This remakes `torchvision_googlenet.npz` beside it, and needs torch 2.13 and torchvision 0.28 (CPU):

    python tests/recorded/torchvision_googlenet.py

The weights are too large to be recorded; `weights` makes them again from a seed, with NumPy alone.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

RECORDED = Path(__file__).with_suffix(".npz")
SEED = 8743
SHAPE = (2, 3, 71, 55)  # odd and not square: every pool that rounds up does, and the heads' windows overlap
CLASSES = 10

Shapes = Mapping[str, tuple[int, ...]]


def weights(shapes: Shapes) -> dict[str, np.ndarray]:
    """Arrays in float64 for a state dict of those names and shapes, none of them at a neutral value.

    Kernels and matrices keep the size of what they are applied to: variance 2 / fan_in. Batch norm's running mean is
    within 0.1 of 0, its variance within 0.5 of 1. Only `Generator.random` is used, whose bits are the same in every
    version of NumPy.
    """
    generator = np.random.Generator(np.random.Philox(SEED))

    def uniform(low: float, high: float, shape: tuple[int, ...]) -> np.ndarray:
        return low + (high - low) * generator.random(shape)

    arrays = {}
    for name, shape in shapes.items():
        if name.endswith("num_batches_tracked"):
            arrays[name] = np.array(7)
        elif len(shape) > 1:
            bound = math.sqrt(6 / math.prod(shape[1:]))
            arrays[name] = uniform(-bound, bound, shape)
        elif name.endswith(("bn.weight", "running_var")):
            arrays[name] = uniform(0.5, 1.5, shape)
        else:  # biases and running means
            arrays[name] = uniform(-0.1, 0.1, shape)
    return arrays


def images() -> np.ndarray:
    """Pixels from 0 to 1."""
    return np.random.Generator(np.random.Philox(SEED + 1)).random(SHAPE)


def digest(arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of names and numbers: the test's weights are the recorded ones, or the logits mean nothing."""
    sha = hashlib.sha256()
    for name, x in arrays.items():
        sha.update(name.encode() + x.tobytes())
    return sha.hexdigest()


def main() -> None:
    import torch
    import torchvision
    from torchvision.models import GoogLeNet

    assert torchvision.__version__.split("+")[0] == "0.28.0", torchvision.__version__
    torch.set_num_threads(1)

    def shapes(model: GoogLeNet) -> Shapes:
        return {name: tuple(x.shape) for name, x in model.state_dict().items()}

    variants = {
        "with heads": GoogLeNet(aux_logits=True, init_weights=False),
        "without heads": GoogLeNet(aux_logits=False, init_weights=False),
        "recorded": GoogLeNet(num_classes=CLASSES, aux_logits=True, init_weights=False),
    }
    made = weights(shapes(variants["recorded"]))
    recorded = {
        "state_dicts": np.array(json.dumps({variant: shapes(model) for variant, model in variants.items()})),
        "weights_sha256": np.array(digest(made)),
    }
    for dtype in ("float32", "float64"):
        model = variants["recorded"].to(getattr(torch, dtype))
        model.load_state_dict({name: torch.from_numpy(x) for name, x in made.items()})
        x = torch.from_numpy(images()).to(getattr(torch, dtype))
        # torchvision runs its heads in training mode only, where dropout and the batch's statistics would make them
        # another function. The mode is a flag of each module: the outermost one alone decides on the heads.
        model.eval()
        model.training = True
        with torch.inference_mode():
            outputs = model(x)
            model.training = False
            assert torch.equal(model(x), outputs.logits)
            for name, y in outputs._asdict().items():
                recorded[f"{dtype}/{name}"] = y.numpy()
            # What `transform_input` stands for: images normalized as ImageNet's go in.
            model.transform_input = True
            mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]], dtype=x.dtype)[..., None, None]
            recorded[f"{dtype}/logits_of_transformed_input"] = model((x - mean) / std).numpy()
            model.transform_input = False
    np.savez_compressed(RECORDED, **recorded)
    print(f"{RECORDED}: {RECORDED.stat().st_size} bytes")


if __name__ == "__main__":
    main()
