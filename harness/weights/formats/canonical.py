"""safetensors: ours, and anyone's; and a folder as Hugging Face lays it out.

The folder holds ``model.safetensors``, which is one of ours and all that is read, and for other programs
``config.json``, ``preprocessor_config.json`` and a model card.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import spec
from harness.images.sources import RESAMPLING
from harness.weights.checkpoint import Checkpoint, read_safetensors, save
from harness.weights.formats.found import Found
from harness.weights.preprocessing import preprocessing_of
from spec import Config, InvalidInput

WEIGHTS, CONFIG, CARD, PICTURES = "model.safetensors", "config.json", "README.md", "preprocessor_config.json"


def read(path: Path) -> Found:
    """Read a safetensors file: arrays by its names, and our texts where there are any.

    Raises:
        InvalidInput: when it is damaged.
    """
    return Found(*read_safetensors(path))


def write_folder(path: Path, weights: Checkpoint) -> None:
    """Write a folder as Hugging Face lays it out.

    Raises:
        InvalidInput: when it cannot be written.
    """
    config, prepare = weights.config, preprocessing_of(weights)
    table: dict[str, Any] = {
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
        table["id2label"] = dict(enumerate(prepare.labels))
    pictures = {
        "do_resize": True,
        "size": {"height": prepare.size, "width": prepare.size},
        "resample": int(RESAMPLING),
        "do_rescale": True,
        "rescale_factor": prepare.scale,
        "do_normalize": True,
        "image_mean": list(prepare.mean),
        "image_std": list(prepare.std),
        "order": prepare.order,
    }
    try:
        path.mkdir(parents=True, exist_ok=True)
        (path / CONFIG).write_text(json.dumps(table, indent=2) + "\n")
        (path / PICTURES).write_text(json.dumps(pictures, indent=2) + "\n")
        (path / CARD).write_text(_card(config))
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be written ({error.strerror})") from error
    save(path / WEIGHTS, weights.params, config, weights.metadata)


def _card(config: Config) -> str:
    family = "googlenet, inception" if config.family == "GoogLeNet" else config.preset.partition("-")[0]
    rows = "\n".join(
        [
            "---",
            "library_name: googlenet",
            "pipeline_tag: image-classification",
            f"tags: [{family}, image-classification]",
            "---",
            "",
            f"# {config.family}, preset {config.preset}",
            "",
            f"{spec.parameter_count(config):,} parameters; {config}.",
            f"The network: {config.source}.",
            "",
            "`model.safetensors` holds the arrays in PyTorch's names and layouts; its metadata, the configuration, how",
            "pictures are prepared, and a SHA-256 of it all. The same file runs in PyTorch, MXNet and JAX:",
            "",
            "```python",
            "from pathlib import Path",
            "import googlenet_pt  # or googlenet_mx, googlenet_jax",
            "from harness.weights import checkpoint",
            "",
            'found = checkpoint.load(Path("model.safetensors"))',
            "model = googlenet_pt.build(found.config)",
            "googlenet_pt.load_params(model, found.params)",
            "```",
            "",
        ]
    )
    return rows
