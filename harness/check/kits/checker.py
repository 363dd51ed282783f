"""Hold a capture against the kit: python check.py CAPTURE.safetensors [TOLERANCE]. Needs numpy and safetensors."""

import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

kit = load_file(str(Path(__file__).with_name("expected.safetensors")))
capture = load_file(sys.argv[1])
tolerance = float(sys.argv[2]) if len(sys.argv) > 2 else 1e-12  # 1e-5 for float32
names = list(dict.fromkeys(name.split(":")[0] for name in kit))
worst = 0.0
for name in sorted(capture.keys() - set(names)):
    print(f"{name}: not in this kit")
    worst = np.inf
for name in names:
    if name not in capture:
        continue
    shape = tuple(kit[f"{name}:shape"]) if f"{name}:shape" in kit else kit[name].shape
    got = capture[name].astype(np.float64)
    if len(shape) == 4 and got.shape == (shape[0], shape[2], shape[3], shape[1]) != shape:
        got = got.transpose(0, 3, 1, 2)  # channels last
    if [n for n in got.shape if n > 1] == [n for n in shape if n > 1]:
        got = got.reshape(shape)  # sides of 1
    if got.shape != shape:
        error = np.inf
    elif name in kit:
        error = np.abs(got - kit[name]).max() / (np.abs(kit[name]).max() or 1)
    else:  # 256 numbers of it, and the norm of all
        values, norm = kit[f"{name}:values"], float(kit[f"{name}:norm"])
        error = np.abs(got.reshape(-1)[kit[f"{name}:places"]] - values).max() / (np.abs(values).max() or 1)
        error = max(error, abs(np.sqrt((got**2).sum()) - norm) / (norm or 1))
    print(f"{name:45} {error:.1e}{'' if error <= tolerance else '   differs'}")
    worst = max(worst, error) if np.isfinite(error) else np.inf
print(f"{len(capture)} of {len(names)} arrays, the worst off by {worst:.1e}")
sys.exit(not worst <= tolerance)
