"""`python -m spec [PRESET] [--size PIXELS]`: the architecture as a table."""

from __future__ import annotations

import argparse
import sys

from spec.errors import InvalidInput
from spec.presets import PRESETS, preset
from spec.table import render


def main() -> int:
    """Print the table; 2 when there is none to print."""
    parser = argparse.ArgumentParser(prog="python -m spec", description="Print a preset's architecture as a table.")
    parser.add_argument("preset", nargs="?", default="d2l", help=f"one of {', '.join(PRESETS)} (default: d2l)")
    parser.add_argument("--size", type=int, help="side of the image in pixels (default: the preset's)")
    arguments = parser.parse_args()
    try:
        config = preset(arguments.preset)
        size = config.input_size if arguments.size is None else arguments.size
        print(render(config, (config.in_channels, size, size)))
    except InvalidInput as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
