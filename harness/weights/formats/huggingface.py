"""A folder as Hugging Face lays it out.

The folder holds ``model.safetensors``, a checkpoint of ours, which is all that we read. Other programs read
``config.json``, ``preprocessor_config.json`` and the model card.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import spec
from harness.atomic import StrPath
from harness.weights.checkpoint import Checkpoint, save
from harness.weights.preprocessing import preprocessing_of
from spec import InvalidInput

WEIGHTS = "model.safetensors"
_CARD = """\
---
library_name: googlenet
pipeline_tag: image-classification
tags: [{tag}, image-classification]
---

# {config.family}, preset {config.preset}

{parameters:,} parameters; {config}.
The network: {config.source}.

`model.safetensors` holds the arrays in PyTorch's names and layouts; its metadata, the configuration, how
pictures are prepared, and a SHA-256 of it all. The same file runs in PyTorch, MXNet and JAX:

```python
from pathlib import Path
import googlenet_pt  # or googlenet_mx, googlenet_jax
from harness.weights import checkpoint

saved = checkpoint.load(Path("model.safetensors"))
model = googlenet_pt.build(saved.config)
googlenet_pt.load_params(model, saved.params)
```
"""


def write_folder(path: StrPath, weights: Checkpoint) -> None:
    """Write a folder as Hugging Face lays it out.

    Raises:
        InvalidInput: when it cannot be written.
    """
    path = Path(path)
    config, prepare = weights.config, preprocessing_of(weights)
    network: dict[str, Any] = {
        "architectures": [config.family],
        "model_type": config.family.lower(),
        "preset": config.preset,
        "num_channels": config.in_channels,
        "num_labels": config.num_classes,
        "image_size": prepare.size,
        "auxiliary_heads": config.aux,
        "dtype": str(next(iter(weights.params.values())).dtype),
    }
    if prepare.labels:
        network["id2label"] = dict(enumerate(prepare.labels))
    size = {"height": prepare.size, "width": prepare.size}
    height, *rest = prepare.resize or (prepare.size,) * 2
    pictures = {
        "do_resize": True,
        "size": {"height": height, "width": rest[0]} if rest else {"shortest_edge": height},
        "resample": int(Image.Resampling[prepare.interpolation.partition("-")[0].upper()]),  # the nearest that there is
        "do_center_crop": bool(prepare.resize),
        "crop_size": size,
        "do_rescale": True,
        "rescale_factor": prepare.scale,
        "do_normalize": True,
        # One for each channel, as transformers asks for.
        "image_mean": np.broadcast_to(prepare.mean, config.in_channels).tolist(),
        "image_std": np.broadcast_to(prepare.std, config.in_channels).tolist(),
        "order": prepare.order,
        "central_crop": prepare.crop,
        "interpolation": prepare.interpolation,
    }
    tag = "googlenet, inception" if config.family == "GoogLeNet" else config.preset.partition("-")[0]
    card = _CARD.format(config=config, tag=tag, parameters=spec.parameter_count(config))
    try:
        path.mkdir(parents=True, exist_ok=True)
        (path / "config.json").write_text(json.dumps(network, indent=2) + "\n")
        (path / "preprocessor_config.json").write_text(json.dumps(pictures, indent=2) + "\n")
        (path / "README.md").write_text(card)
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be written ({error.strerror})") from error
    save(path / WEIGHTS, weights.params, config, weights.metadata)
