"""Files of weights: bit for bit between the frameworks and us, and one line for whatever else may stand in a file.

ONNX has a file of its own, test_onnx.py; what safetensors may hold is in test_checkpoint.py.
"""

from __future__ import annotations

import gc
import hashlib
import io
import json
import os
import pickle
import shutil
import struct
import tempfile
import time
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file
from support import TESTED, here, import_frameworks

import spec
from harness.weights import checkpoint
from harness.weights.checkpoint import Checkpoint, describe
from harness.weights.convert import read_weights
from harness.weights.formats import FORMATS, TEXTS, detect, flax, format_for, gluon, pytorch
from harness.weights.formats.contents import Contents
from spec import InvalidInput

Arrays = dict[str, np.ndarray]
# Networks with every kind of array, learned and fixed: formats do not know topologies.
LENET, FROZEN = spec.preset("lenet-bn"), spec.preset("lenet-bn-frozen")

# Where Orbax cannot read one part it leaves what it began of the others to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning"),
]


@pytest.fixture(scope="module", autouse=True)
def frameworks(request: pytest.FixtureRequest) -> Iterator[None]:
    """And what is collected later would fail whatever is tested then."""
    import_frameworks(request)
    yield
    gc.collect()


def needs(backend: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(backend not in TESTED, reason=f"{backend} is not listed in GOOGLENET_BACKENDS")


def read(path: Path, form: str | None = None) -> Contents:
    return FORMATS[form or detect(path)].read(path, here)


def assert_same(arrays: spec.Arrays, expected: spec.Arrays) -> None:
    assert set(arrays) == set(expected)
    for name, x in expected.items():
        assert (arrays[name].dtype, arrays[name].shape) == (x.dtype, x.shape), name
        assert arrays[name].tobytes() == x.tobytes(), name


def assert_one_line(error: InvalidInput, path: Path) -> str:
    """The message, which names the file or one that belongs to it, and fits on a line."""
    message = str(error)
    assert message.startswith(str(path).removesuffix("-symbol.json")), message
    assert message.isprintable(), message
    assert len(message) < len(str(path)) + 600, message
    return message


@contextmanager
def next_to_no_memory() -> Iterator[None]:
    """Makes sure of that, where the system tells. (`tracemalloc` ends a process with TensorStore's threads in it.)"""
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the largest size so far is forgotten
    except OSError:
        yield
    else:
        before = largest_size()
        yield
        assert largest_size() - before < 64e6


def largest_size() -> int:
    """Bytes of this process that have been in memory at once."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def refusal(path: Path, form: str | None = None, call: Callable[[Path, str | None], Any] = read) -> str:
    """What is said of a file that must be refused, in no time."""
    started = time.process_time()
    with next_to_no_memory(), pytest.raises(InvalidInput) as caught:
        call(path, form)
    assert time.process_time() - started < 5
    return assert_one_line(caught.value, path)


# ----------------------------------------------------------------------------------------- a network, and next to none


@cache
def network(config: spec.Config, dtype: str) -> Arrays:
    rng = np.random.default_rng(0)
    shapes = spec.param_shapes(config)
    params = {name: (rng.random(shape, np.float32) - np.float32(0.5)).astype(dtype) for name, shape in shapes.items()}
    params["fc5.bias"][:4] = [np.finfo(dtype).max, np.finfo(dtype).smallest_subnormal, -0.0, np.finfo(dtype).eps]
    for x in params.values():
        x.setflags(write=False)
    return params


def bits(dtype: str, *shape: int) -> np.ndarray:
    """Numbers of any bits at all: NaN of several kinds, infinity, some next to nothing."""
    return np.frombuffer(np.random.default_rng(5).bytes(512), dtype)[: np.prod(shape, dtype=int)].reshape(shape).copy()


TINY = {
    "conv.weight": bits("<f4", 2, 1, 3, 3),
    "conv.bias": bits("<f2", 2),
    "fc.weight": bits("<f8", 3, 2),
    "fc.bias": bits("<f4", 3),
}
TINY_TEXTS = describe(TINY, LENET, {"labels": ["coat", "外套"]})
SYMBOL = b'{"nodes": [{"op": "null", "name": "data", "inputs": []}], "heads": [[0, 0, 0]]}'
PATHS = {
    "safetensors": "a.safetensors",
    "huggingface": "a",
    "pytorch": "a.pt",
    "gluon": "a.params",
    "mxnet": "a-symbol.json",
    "flax": "a.msgpack",
    "orbax": "a",
}
FORMS = ["safetensors", "huggingface", pytest.param("pytorch", marks=needs("pt")), "gluon", "mxnet", "flax"]
ORBAX = pytest.param("orbax", marks=needs("jax"))


def write(form: str, path: Path, arrays: Arrays, texts: dict[str, str]) -> None:
    """Arrays by the names that they have, a network or not, and texts."""
    if form == "safetensors":
        save_file(arrays, path, texts)
    elif form == "huggingface":
        path.mkdir()
        save_file(arrays, path / "model.safetensors", texts)
    elif form == "pytorch":
        path.write_bytes(saved(tensors(arrays)))
        pytorch.add_texts(path, texts)
    elif form == "gluon":
        gluon.write(path, arrays, texts)
    elif form == "mxnet":
        path.write_bytes(SYMBOL)
        named = {f"arg:{name}": x for name, x in arrays.items()}
        gluon.write(path.with_name("a-0000.params"), named, texts | {"symbol": hashlib.sha256(SYMBOL).hexdigest()})
    elif form == "flax":
        flax.write(path, arrays, texts)
    else:
        here("jax", {"kind": "write", "path": str(path), "config": {"name": "lenet-bn"}}, arrays)
        (path / TEXTS).write_text(json.dumps(texts))


@cache
def tiny(form: str) -> dict[str, bytes]:
    """All files of `TINY` in a format."""
    with tempfile.TemporaryDirectory() as folder:
        write(form, Path(folder) / PATHS[form], TINY, TINY_TEXTS)
        paths = [path for path in sorted(Path(folder).rglob("*")) if path.is_file()]
        return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def place(folder: Path, form: str, files: dict[str, bytes]) -> Path:
    """Put the files there, in the place of others, and name the one that stands for them."""
    shutil.rmtree(folder / "files", ignore_errors=True)
    for name, content in files.items():
        path = folder / "files" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder / "files" / PATHS[form]


def refused(path: Path, form: str) -> bool:
    """Whether it is; or else it holds what `TINY` does, as far as the hash in it can tell."""
    try:
        found = read(path, form)
    except InvalidInput as error:
        assert_one_line(error, path)
        return True
    texts = dict(found.texts)
    if texts.pop("sha256", None) == checkpoint._digest(found.arrays, texts):
        assert_same(found.arrays, TINY)
        assert found.texts == TINY_TEXTS
    return False


@pytest.mark.parametrize("form", [*FORMS, ORBAX])
def test_arrays_and_texts_come_back_from_wherever_they_stand(form, tmp_path):
    folder = tmp_path / "mañana 日本 & 'x'"
    folder.mkdir()
    write(form, folder / PATHS[form], TINY, TINY_TEXTS)
    link = tmp_path / f"link to {PATHS[form]}"
    link.symlink_to(folder / PATHS[form])
    if form == "mxnet":
        link.with_name("link to a-0000.params").symlink_to(folder / "a-0000.params")
    for path in (folder / PATHS[form], link):
        assert detect(path) == form
        found = read(path)
        assert_same(found.arrays, TINY)
        assert found.texts == TINY_TEXTS
        assert not refused(path, form)


@pytest.mark.parametrize("form", [*FORMS, ORBAX])
def test_a_changed_number_and_a_changed_text_are_noticed_by_these_tests(form, tmp_path):
    """That `refused` can fail."""
    for name, change in (("number", {"fc.bias": -TINY["fc.bias"]}), ("text", {})):
        (tmp_path / name).mkdir()
        path = tmp_path / name / PATHS[form]
        texts = describe(TINY | change, LENET, {"labels": ["coat", "trousers"]})
        write(form, path, TINY | change, texts)
        with pytest.raises(AssertionError):
            refused(path, form)


# ------------------------------------------------------------------------------------------------ PyTorch's files, ours


def saved(state: Any, **settings: Any) -> bytes:
    import torch

    file = io.BytesIO()
    torch.save(state, file, **settings)
    return file.getvalue()


def tensors(arrays: Arrays) -> dict[str, Any]:
    import torch

    return {name: torch.from_numpy(np.array(x)) for name, x in arrays.items()}


@needs("pt")
@pytest.mark.parametrize(("config", "dtype"), [(LENET, "float16"), (FROZEN, "float32")])
def test_pytorch_loads_what_we_write(config, dtype, tmp_path):
    import torch

    import googlenet_pt

    params, path = network(config, dtype), tmp_path / "a.pt"
    FORMATS["pytorch"].write(path, Checkpoint(params, config), here)
    state = torch.load(path, weights_only=True)
    assert_same({name: x.numpy() for name, x in state.items() if "num_batches" not in name}, params)
    model = googlenet_pt.build(config, device="cpu")
    assert state.keys() == model.state_dict().keys()  # counters of batches too, which PyTorch would make up
    model.load_state_dict(state)
    assert_same(googlenet_pt.dump_params(model), {name: x.astype("float32") for name, x in params.items()})
    assert read(path).texts == describe(params, config, {})


@needs("pt")
@pytest.mark.parametrize("key", [None, "state_dict", "model"])
def test_we_read_what_pytorch_saves(key, tmp_path):
    import torch

    import googlenet_pt

    model, path = googlenet_pt.build(LENET, device="cpu"), tmp_path / "a.pth"
    googlenet_pt.load_params(model, network(LENET, "float32"))
    optimizer = torch.optim.Adam([{"params": [x]} for x in model.parameters()])  # shares the pair of betas
    state = model.state_dict()
    torch.save(state if key is None else {key: state, "optimizer": optimizer.state_dict(), "epoch": 3}, path)
    source = read_weights(path, here)  # which network it is PyTorch's counters of batches tell
    assert (source.form, source.scheme, source.weights.config) == ("pytorch", "canonical", LENET)
    assert_same(source.weights.params, network(LENET, "float32"))
    assert any(f"took off `{key}`" in note for note in source.notes) == (key is not None)
    if key is not None:
        return
    images = np.random.default_rng(0).random((1, 1, 28, 28))
    task = {"kind": "run", "path": str(path), "config": {"name": "lenet-bn"}}
    stages = here("pt", task | {"dtype": "float32"}, {"images": images}).arrays
    assert_same(stages, googlenet_pt.activations(model, images))


@needs("pt")
def test_tensors_of_every_kind_are_read(tmp_path):
    import torch

    state = {name: x[None] for name, x in tensors(TINY).items()} | {
        "brain": torch.tensor([1.5, -2e38, 1e-40]).bfloat16(),
        "point": torch.tensor(0.1),
        "empty": torch.zeros(0, 3, dtype=torch.float64),
        "turned": torch.arange(6.0).reshape(2, 3).T,
        "every other": torch.arange(6.0)[::2],
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "counter": torch.tensor(7),
        "flags": torch.tensor([True, False]),
    }
    expected = {name: (x.float() if name == "brain" else x).detach().numpy() for name, x in state.items()}
    for state_dict in (state, OrderedDict(state)):
        (tmp_path / "a.pt").write_bytes(saved(state_dict))
        assert_same(read(tmp_path / "a.pt").arrays, expected)


# -------------------------------------------------------------------------------------------------- MXNet's files, ours


@needs("mx")
@pytest.mark.parametrize("config", [LENET, FROZEN])
def test_gluon_loads_what_we_write_and_we_what_it_saves(config, tmp_path):
    import googlenet_mx

    params, path = network(config, "float32"), tmp_path / "a.params"
    FORMATS["gluon"].write(path, Checkpoint(params, config), here)
    model = googlenet_mx.build(config, device="cpu")
    model.load_parameters(str(path))
    assert_same(googlenet_mx.dump_params(model), params)
    found = read(path)
    assert found.texts == describe(params, config, {})

    model.save_parameters(str(tmp_path / "theirs.params"))
    assert_same(read(tmp_path / "theirs.params").arrays, found.arrays)
    source = read_weights(tmp_path / "theirs.params", here, preset=config.preset)
    assert (source.form, source.weights.config) == ("gluon", config)
    assert_same(source.weights.params, params)


@needs("mx")
@pytest.mark.filterwarnings("ignore:Cannot decide type for the following")
@pytest.mark.parametrize("config", [LENET, FROZEN])
def test_mxnet_loads_the_symbol_that_we_write(config, tmp_path):
    from mxnet.gluon import SymbolBlock

    params, path = network(config, "float32"), tmp_path / "a-symbol.json"
    FORMATS["mxnet"].write(path, Checkpoint(params, config), here)
    block = SymbolBlock.imports(str(path), ["data"], str(tmp_path / "a-0000.params"))
    assert_same({name: x.data().asnumpy() for name, x in block.collect_params().items()}, params)
    source = read_weights(path, here)
    assert (source.form, source.weights.config) == ("mxnet", config)
    assert_same(source.weights.params, params)
    message = refusal(tmp_path / "a-0000.params")
    assert message.endswith("the parameters of a symbol; name its -symbol.json instead, which says the network")


@needs("mx")
def test_arrays_of_every_kind_come_back_from_mxnet(tmp_path):
    import mxnet as mx

    path, arrays = tmp_path / "a.params", TINY | {"empty": np.zeros((0, 3), "<f4")}
    gluon.write(path, arrays, TINY_TEXTS)
    assert_same({name: x.asnumpy() for name, x in mx.nd.load(str(path)).items()}, arrays)

    whole = {"bytes": np.arange(3, dtype=np.uint8), "whole": np.arange(-3, 3, dtype=np.int64).reshape(2, 3)}
    given = {name: mx.nd.array(x, dtype=x.dtype) for name, x in (TINY | whole).items()}
    mx.nd.save(str(path), {f"arg:{name}": x for name, x in given.items()})
    assert_same(read(path).arrays, {name: x.asnumpy() for name, x in given.items()})

    with mx.util.np_shape(True), mx.util.np_array(True):
        given = {"point": mx.np.array(3.5), "none": mx.np.zeros((0, 3)), "some": mx.np.ones((2, 3), dtype="float16")}
        mx.npx.save(str(path), given)
        assert_same(read(path).arrays, {name: x.asnumpy() for name, x in given.items()})


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((), "f4"), "MXNet reads no arrays without dimensions, got x"),
        (np.zeros(3, "i4"), "MXNet's files hold float16, float32 and float64, got {'x': 'int32'}"),
        (np.zeros(3, "c8"), "MXNet's files hold float16, float32 and float64, got {'x': 'complex64'}"),
    ],
)
def test_arrays_that_mxnet_could_not_read_are_not_written(x, message, tmp_path):
    with pytest.raises(InvalidInput) as caught:
        gluon.write(tmp_path / "a.params", {"x": x}, {})
    assert message in assert_one_line(caught.value, tmp_path / "a.params")
    assert not any(tmp_path.iterdir())


# --------------------------------------------------------------------------------------- Flax's and Orbax's files, ours


@pytest.fixture(scope="module")
def tree() -> dict[str, Any]:
    """The pure dictionary of a network, as NNX has it."""
    from flax import nnx

    import googlenet_jax

    model = googlenet_jax.build(LENET, device="cpu")
    googlenet_jax.load_params(model, network(LENET, "float32"))
    return nnx.to_pure_dict(nnx.state(model, (nnx.Param, nnx.BatchStat)))


def flat(tree: dict[str, Any]) -> Arrays:
    from flax.traverse_util import flatten_dict

    return {".".join(keys): np.asarray(x) for keys, x in flatten_dict(tree).items()}


@needs("jax")
@pytest.mark.parametrize("below", [None, "params"])
def test_flax_restores_what_we_write_and_we_read_what_it_serializes(below, tree, tmp_path):
    from flax import serialization

    params = network(LENET, "float32")
    FORMATS["flax"].write(tmp_path / "a.msgpack", Checkpoint(params, LENET), here)
    restored = serialization.msgpack_restore((tmp_path / "a.msgpack").read_bytes())
    assert_same(flat(restored.pop("params")), flat(tree))
    assert restored == describe(params, LENET, {}) == read(tmp_path / "a.msgpack").texts

    path = tmp_path / "theirs.msgpack"
    path.write_bytes(serialization.msgpack_serialize(tree if below is None else {below: tree, "epoch": 3}))
    source = read_weights(path, here, preset="lenet-bn")
    assert (source.form, source.scheme, source.weights.config) == ("flax", "nnx", LENET)
    assert_same(source.weights.params, params)


@needs("jax")
def test_orbax_restores_what_we_write_and_we_read_what_it_saves(tree, tmp_path):
    import orbax.checkpoint as ocp

    params = network(LENET, "float32")
    FORMATS["orbax"].write(tmp_path / "ours", Checkpoint(params, LENET), here)
    with ocp.StandardCheckpointer() as checkpointer:
        assert_same(flat(checkpointer.restore(tmp_path / "ours")), flat(tree))
        checkpointer.save(tmp_path / "theirs", tree)
    assert read(tmp_path / "ours").texts == describe(params, LENET, {})
    source = read_weights(tmp_path / "theirs", here, preset="lenet-bn")
    assert (source.form, source.scheme, source.weights.config) == ("orbax", "nnx", LENET)
    assert_same(source.weights.params, params)


@needs("jax")
def test_arrays_of_every_kind_come_back_from_flax_and_orbax(tmp_path):
    import jax.numpy as jnp
    import orbax.checkpoint as ocp
    from flax import serialization

    brain = jnp.array([1.5, -2e38, 1e-40], jnp.bfloat16)
    arrays = {name.replace(".", "-"): x for name, x in TINY.items()} | {"point": np.array(0.1, "f4")}
    expected = arrays | {"brain": np.asarray(brain).astype("f4")}
    empty = {"empty": np.zeros((0, 3), "f4")}  # which Orbax cannot save
    path = tmp_path / "a.msgpack"
    path.write_bytes(serialization.msgpack_serialize(arrays | empty | {"brain": brain}))
    assert_same(read(path).arrays, expected | empty)
    flax.write(path, arrays | empty | {"brain": np.asarray(brain)}, {})
    restored = serialization.msgpack_restore(path.read_bytes())["params"]
    assert_same(restored, arrays | empty | {"brain": np.asarray(brain)})

    for i, how in enumerate([{}, {"use_ocdbt": False}, {"use_zarr3": True}]):
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler(**how)) as checkpointer:
            checkpointer.save(tmp_path / str(i), arrays | {"brain": brain, "epoch": np.int32(3)})
        assert_same(read(tmp_path / str(i)).arrays, expected | {"epoch": np.array(3, "i4")})


# --------------------------------------------------------------------------------------------------------------- detect

SUFFIXES = [suffix for form in FORMATS.values() for suffix in form.suffixes]


@pytest.mark.parametrize("form", ["safetensors", pytest.param("pytorch", marks=needs("pt")), "gluon", "flax"])
def test_a_format_is_told_by_its_content_before_its_suffix(form, tmp_path):
    ((_, content),) = tiny(form).items()
    for suffix in ["", ".bin", ".h5", *SUFFIXES]:
        path = tmp_path / f"a{suffix}"
        path.write_bytes(content)
        undecided = form == "flax" and suffix == ".onnx"  # neither has a beginning of its own
        assert detect(path) == ("onnx" if undecided else form), suffix


@pytest.mark.parametrize("content", [b"\0", b"\xff" * 100])
def test_a_format_is_told_by_its_suffix_where_the_content_says_nothing(content, tmp_path):
    for name, form in FORMATS.items():
        for suffix in form.suffixes:
            (tmp_path / f"a{suffix}").write_bytes(content)
            assert detect(tmp_path / f"a{suffix}") == name == format_for(tmp_path / f"a{suffix}")
    (tmp_path / "a.bin").write_bytes(content)
    assert "name it with --from" in refusal(tmp_path / "a.bin")
    with pytest.raises(InvalidInput, match=r"or --to huggingface or orbax, for a folder") as caught:
        format_for(tmp_path / "a.bin")
    assert_one_line(caught.value, tmp_path / "a.bin")


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 23921768\n"
PAGE = b"<!DOCTYPE html><html><head><title>404</title></head></html>"
SAID = {
    "a pointer": (LFS, "run `git lfs pull`"),
    "a page": (PAGE, "download that again"),
    "a page of small letters": (b"\n\n" + PAGE.lower(), "download that again"),
    "a page without a type": (b"<HTML><body>Sign in</body></HTML>", "download that again"),
    "gzip": (b"\x1f\x8b\x08\x00" + bytes(100), "gunzip it first"),
    "a pickle": (pickle.dumps({"a": [0.5]}, 2), "save its arrays with numpy.savez as .npz"),
    "a newer pickle": (pickle.dumps({"a": [0.5]}, 3), "save its arrays with numpy.savez as .npz"),
    "a still newer pickle": (pickle.dumps({"a": [0.5]}, 4), "save its arrays with numpy.savez as .npz"),
    "the newest pickle": (pickle.dumps({"a": [0.5]}, 5), "save its arrays with numpy.savez as .npz"),
}


@pytest.mark.parametrize("what", SAID)
def test_a_file_of_another_kind_is_refused_with_its_remedy(what, tmp_path):
    content, remedy = SAID[what]
    for suffix in ["", ".bin", *SUFFIXES]:
        (tmp_path / f"a{suffix}").write_bytes(content)
        assert remedy in refusal(tmp_path / f"a{suffix}")


def test_a_path_that_is_no_file_is_refused(tmp_path):
    assert refusal(tmp_path / "none.pt").endswith("there is no such file or folder; check the path")
    assert "there is no such file" in refusal(tmp_path / "none" / "a.pt")
    (tmp_path / "link.pt").symlink_to(tmp_path / "nothing")
    assert "there is no such file" in refusal(tmp_path / "link.pt")
    (tmp_path / "loop.pt").symlink_to(tmp_path / "loop.pt")
    assert "there is no such file" in refusal(tmp_path / "loop.pt")
    assert "check its name and permissions" in refusal(tmp_path / ("x" * 300 + ".pt"))
    for name in ("empty", "folder.params", "folder.msgpack", "folder-symbol.json"):
        (tmp_path / name).mkdir()
        assert "expected a folder with model.safetensors, or an Orbax checkpoint; name" in refusal(tmp_path / name)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "weights.safetensors").write_bytes(tiny("safetensors")["a.safetensors"])
    assert "name the file or folder in it" in refusal(tmp_path / "other")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no such pipes")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.params")
    assert "expected a file, got a pipe or a device; save what comes from it first" in refusal(tmp_path / "pipe.params")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("form", [*FORMS, ORBAX])
def test_a_file_without_permission_is_refused(form, tmp_path):
    path = place(tmp_path, form, tiny(form))
    path.chmod(0)
    try:
        assert "cannot be read (Permission denied)" in refusal(path)
        refusal(path, form)
    finally:
        path.chmod(0o700)


@pytest.mark.parametrize("form", [*FORMS, ORBAX])
def test_a_file_in_place_of_a_folder_and_a_folder_in_place_of_a_file_are_refused(form, tmp_path):
    if FORMATS[form].suffixes:
        (tmp_path / PATHS[form]).mkdir()
    else:
        (tmp_path / PATHS[form]).write_bytes(tiny("safetensors")["a.safetensors"])
    refusal(tmp_path / PATHS[form], form)
    refusal(tmp_path / "none" / PATHS[form], form)


# ------------------------------------------------------------------------------------------------ any content, any form

CONTENTS = {name: content for name, (content, _) in SAID.items()} | {
    "nothing": b"",
    "a byte": b"\x81",
    "zeros": bytes(1000),
    "ones": b"\xff" * 1000,
    "noise": np.random.default_rng(0).bytes(10_000),
    "text": b"conv1.weight\n" * 100,
    "brackets": b"[" * 100_000,
    "a list": b"[1, 2, 3]",
    "a string": b'"nodes"',
    "the oldest pickle": pickle.dumps({"a": [0.5]}, 0),
    "a NumPy array": b"\x93NUMPY\x01\x00v\x00{'descr': '<f8', 'fortran_order': False, 'shape': (3,), }" + b" " * 60,
    "an archive's beginning": b"PK\x03\x04" + bytes(100),
    "an empty archive": b"PK\x05\x06" + bytes(18),
}


@pytest.mark.parametrize("form", FORMS)
def test_other_contents_are_refused_in_every_file_of_a_format(form, tmp_path):
    for name in tiny(form):
        for content in CONTENTS.values():
            path = place(tmp_path, form, tiny(form) | {name: content})
            refusal(path, form)
            refusal(path)


@pytest.mark.parametrize("form", FORMS)
def test_a_truncated_file_is_refused(form, tmp_path):
    """Wherever. Of Gluon's parameters the texts are the end, without which they are another program's."""
    kept = []
    for name, content in tiny(form).items():
        path = place(tmp_path, form, tiny(form))
        for length in reversed(range(len(content))):
            os.truncate(tmp_path / "files" / name, length)
            if not refused(path, form):
                kept.append((name, content[length:]))
                assert_same(read(path, form).arrays, TINY)
    assert all(name.endswith(".params") and json.loads(rest)["sha256"] for name, rest in kept)
    assert len(kept) == (form in ("gluon", "mxnet"))


@pytest.mark.parametrize("form", FORMS)
def test_a_file_with_a_tail_is_refused(form, tmp_path):
    for name, content in tiny(form).items():
        for tail in (b"\0", b"extra", b"PK\x05\x06" + bytes(18), content):
            refusal(place(tmp_path, form, tiny(form) | {name: content + tail}), form)


@pytest.mark.parametrize("form", FORMS)
def test_two_files_joined_are_refused(form, tmp_path):
    """Whatever comes first, a format that hides another behind it is refused."""
    for name, content in tiny(form).items():
        for other in FORMS:
            if other not in ("pytorch", form) and isinstance(other, str):
                for hidden in tiny(other).values():
                    path = place(tmp_path, form, tiny(form) | {name: hidden + content})
                    refusal(path, form)


# ----------------------------------------------------------------------------------------------- Gluon's files, by hand


def params_file(
    *,
    magic: int = 0xF993FAC9,
    storage: int = 0,
    dimensions: int | None = None,
    shape: tuple[int, ...] = (2, 3),
    flag: int = 0,
    data: bytes = bytes(24),
    count: int = 1,
    names: tuple[bytes, ...] = (b"arg:a",),
    names_count: int | None = None,
    name_size: int | None = None,
    tail: bytes = b"",
) -> bytes:
    """A file of one array, with anything in it."""
    dimensions = len(shape) if dimensions is None else dimensions
    content = struct.pack("<QQQ", 0x112, 0, count)
    content += struct.pack(f"<Iii{len(shape)}q", magic, storage, dimensions, *shape)
    content += struct.pack("<iii", 1, 0, flag) + data
    content += struct.pack("<Q", len(names) if names_count is None else names_count)
    for name in names:
        content += struct.pack("<Q", len(name) if name_size is None else name_size) + name
    return content + tail


NOT_PARAMS: dict[str, dict[str, Any]] = {
    "more arrays than bytes": {"count": 2**64 - 1},
    "a few arrays more": {"count": 2},
    "no arrays": {"count": 0},
    "another magic": {"magic": 0xF993FAC8},
    "the magic of old": {"magic": 0x112},
    "sparse": {"storage": 1},
    "undefined": {"storage": -1},
    "many dimensions": {"dimensions": 2**31 - 1},
    "fewer than no dimensions": {"dimensions": -1},
    "33 dimensions": {"shape": (1,) * 33, "data": bytes(4)},
    "no dimensions": {"shape": (), "data": bytes(4)},
    "a huge side": {"shape": (2**62, 3)},
    "huge sides": {"shape": (2**62,) * 32},
    "huge sides of nothing": {"shape": (0, 2**62, 2**62), "data": b""},
    "4 TB": {"shape": (10**6, 10**6)},
    "a negative side": {"shape": (-1,)},
    "negative sides": {"shape": (-2, -3)},
    "one number more": {"shape": (7,)},
    "one number less": {"shape": (5,)},
    "bool": {"flag": 7, "data": bytes(6)},
    "bfloat16": {"flag": 12, "data": bytes(12)},
    "no such type": {"flag": 2**31 - 1},
    "fewer than no type": {"flag": -1},
    "wider numbers": {"flag": 1},
    "more names than bytes": {"names_count": 2**64 - 1},
    "no names": {"names": ()},
    "two names": {"names": (b"a", b"b")},
    "a name of all bytes": {"name_size": 2**64 - 1},
    "a name of one byte more": {"name_size": 6},
    "a name that is no text": {"names": (b"\xff\xfe",)},
    "a tail that is no text": {"tail": b'{"a": "\xff"}'},
    "a tail of numbers": {"tail": b'{"format": 3}'},
    "a tail that is a list": {"tail": b"[]"},
    "a tail of brackets": {"tail": b"[" * 100_000},
    "a tail of objects": {"tail": b"[" + b"{}," * 2**21 + b"{}]"},
    "a tail of digits": {"tail": b"1" * 100_000},
}


@pytest.mark.parametrize("what", NOT_PARAMS)
def test_a_damaged_params_file_is_refused(what, tmp_path):
    (tmp_path / "a.params").write_bytes(params_file(**NOT_PARAMS[what]))
    assert "not MXNet's list of arrays" in refusal(tmp_path / "a.params")


def test_variants_of_a_params_file_are_read(tmp_path):
    for values in ({}, {"magic": 0xF993FACA}, {"tail": b" {} "}, {"names": (b"a",)}, {"names": (b"aux:a",)}):
        (tmp_path / "a.params").write_bytes(params_file(**values))
        assert_same(read(tmp_path / "a.params").arrays, {"a": np.zeros((2, 3), "f4")})


@pytest.mark.parametrize("names", [(b"a", b"a"), (b"arg:a", b"aux:a"), (b"arg:a", b"a")])
def test_two_arrays_of_a_name_in_a_params_file_are_refused(names, tmp_path):
    one = params_file()[24:-21]
    content = struct.pack("<QQQ", 0x112, 0, 2) + 2 * one + struct.pack("<Q", 2)
    content += b"".join(struct.pack("<Q", len(name)) + name for name in names)
    (tmp_path / "a.params").write_bytes(content)
    assert "2 names, 1 of them different, for 2 arrays" in refusal(tmp_path / "a.params")
    (tmp_path / "a.params").write_bytes(content[:-1] + b"b")
    assert set(read(tmp_path / "a.params").arrays) == {"a", "b"}


def test_whole_numbers_in_place_of_parameters_are_refused(tmp_path):
    path = tmp_path / "a.params"
    gluon.write(path, network(LENET, "float16") | {"fc5.bias": np.zeros(10, "f4")}, {})
    content = path.read_bytes()
    head = struct.pack("<Iiiqii", 0xF993FAC9, 0, 1, 10, 1, 0)  # of an array of ten numbers; their type comes next
    at = content.rindex(head) + len(head)
    path.write_bytes(content[:at] + struct.pack("<i", 4) + content[at + 4 :])
    assert read(path).arrays["fc5.bias"].dtype == np.int32
    message = refusal(path, call=lambda path, form: read_weights(path, here, form))
    assert "fc5.bias" in message
    assert "int32" in message


# ----------------------------------------------------------------------------------------------------- MXNet's symbols


def test_a_symbol_is_refused_unless_it_stands_beside_its_own_parameters(tmp_path):
    path = place(tmp_path, "mxnet", tiny("mxnet"))
    changed = SYMBOL.replace(b"data", b"date")
    path.write_bytes(changed)
    assert f"expected the graph with SHA-256 {hashlib.sha256(SYMBOL).hexdigest()}, got" in refusal(path)
    for content in (b'{"nodes": 3}', b"{}", b'{"nodes": ' + b"[" * 10_000):
        path.write_bytes(content)  # under another program's parameters
        gluon.write(path.with_name("a-0000.params"), TINY, {})
        assert "restore a copy" in refusal(path) or "expected a JSON file" in refusal(path)
    path.write_bytes(changed)
    assert_same(read(path).arrays, TINY)
    with path.open("wb") as file:
        file.truncate(2**40)  # a hole: it takes no room
    assert "expected at most 4,294,967,296 bytes, as no network here has more, got 1,099" in refusal(path, "mxnet")
    path.unlink()
    assert "No such file" in refusal(path, "mxnet")
    path.write_bytes(SYMBOL)
    path.with_name("a-0000.params").unlink()
    assert refusal(path).endswith("a-0000.params: cannot be read (No such file or directory)")
    path.with_name("a.json").write_bytes(SYMBOL)
    assert "expected a name that ends in -symbol.json" in refusal(path.with_name("a.json"), "mxnet")


# ------------------------------------------------------------------------------------------------ Flax's files, by hand


def packed(shape: Any = (2, 3), dtype: Any = "float32", content: Any = bytes(24), code: int = 1) -> msgpack.ExtType:
    return msgpack.ExtType(code, msgpack.packb((shape, dtype, content)))


A = msgpack.packb(packed())
NOT_MSGPACK = {
    "a list": msgpack.packb([1]),
    "a number": b"\x01",
    "a name twice": b"\x82" + (b"\xa1a" + A) * 2,
    "a name twice, below": b"\x81\xa6params\x82" + (b"\xa1a" + A) * 2,
    "params twice": b"\x82" + (b"\xa6params\x81\xa1a" + A) * 2,
    "two paths to a name": msgpack.packb({"a": {"b": packed()}, "a.b": packed()}),
    "a name that is bytes": msgpack.packb({b"a": packed()}),
    "a name that is a number": msgpack.packb({1: packed()}),
    "a name that is an array": b"\x81" + A + A,
    "a name that is no text": b"\x81\xa1\xff" + A,
    "a name that is half a character": b"\x81\xa3\xed\xa0\x80" + A,
    "a long name over many arrays": msgpack.packb({"k" * 10**6: {str(i): packed() for i in range(1000)}}),
    "4 billion pairs": b"\xdf" + b"\xff" * 4 + A,
    "4 billion items": b"\xdd" + b"\xff" * 4 + A,
    "a list of as many items as bytes, in one, in one": (b"\xdd" + (10**6).to_bytes(4, "big")) * 1000 + bytes(10**6),
    "4 billion bytes": b"\x81\xa1a\xc9" + b"\xff" * 4 + b"\x01" + A,
    "nested": b"\x81\xa1a" * 900 + A,
    "nested deeper": b"\x81\xa1a" * 100_000 + A,
    "nested lists": b"\x91" * 100_000,
    "nested in an array": msgpack.packb({"a": msgpack.ExtType(1, b"\x91" * 100_000)}),
    "many items in an array": msgpack.packb({"a": msgpack.ExtType(1, b"\xdd\x00\x0f\xff\xff" * 100 + bytes(2**20))}),
    "an array in an array": msgpack.packb({"a": msgpack.ExtType(1, A)}),
    "an empty array": msgpack.packb({"a": msgpack.ExtType(1, b"")}),
    "a complex number": msgpack.packb({"a": packed(code=2)}),
    "a time": msgpack.packb({"a": msgpack.Timestamp(0)}),
    "an unused byte": b"\xc1",
    "a text for an array": msgpack.packb({"params": {"a": "0.5"}}),
    "a list for an array": msgpack.packb({"params": {"a": [0.5, 0.5]}}),
    "bytes for an array": msgpack.packb({"params": {"a": bytes(24)}}),
    "nothing for an array": msgpack.packb({"params": {"a": None}}),
    "an array for all": msgpack.packb({"format": "googlenet-1", "params": packed()}),
    "only an array": A,
    "one number more": msgpack.packb({"a": packed((7,))}),
    "one number less": msgpack.packb({"a": packed((5,))}),
    "half a number": msgpack.packb({"a": packed((5,), content=bytes(22))}),
    "4 TB": msgpack.packb({"a": packed((10**6, 10**6))}),
    "a huge side": msgpack.packb({"a": packed((2**64 - 1,))}),
    "huge sides": msgpack.packb({"a": packed((2**62,) * 8)}),
    "huge sides of nothing": msgpack.packb({"a": packed((0, 2**62, 2**62), content=b"")}),
    "a side to be found": msgpack.packb({"a": packed((-1,))}),
    "a side to be found, of two": msgpack.packb({"a": packed((2, -1))}),
    "negative sides": msgpack.packb({"a": packed((-2, -3))}),
    "40 dimensions": msgpack.packb({"a": packed((1,) * 40, content=bytes(4))}),
    "100 dimensions": msgpack.packb({"a": packed((1,) * 100, content=bytes(4))}),
    "a shape that is a number": msgpack.packb({"a": packed(6)}),
    "no shape": msgpack.packb({"a": packed(None)}),
    "a shape of fractions": msgpack.packb({"a": packed((2.0, 3.0))}),
    "a shape of truths": msgpack.packb({"a": packed((True,), content=bytes(4))}),
    "a shape in a shape": msgpack.packb({"a": packed(((2, 3),))}),
    "objects": msgpack.packb({"a": packed((3,), "object")}),
    "a record": msgpack.packb({"a": packed((3,), "f4,f4")}),
    "no such type": msgpack.packb({"a": packed(dtype="float7")}),
    "a list for a type": msgpack.packb({"a": packed(dtype=["float32"])}),
    "a text for bytes": msgpack.packb({"a": packed(content="x" * 24)}),
    "a tail": msgpack.packb({"a": packed()}) + A,
}  # fmt: skip


@pytest.mark.parametrize("what", NOT_MSGPACK)
def test_a_damaged_msgpack_file_is_refused(what, tmp_path):
    (tmp_path / "a.msgpack").write_bytes(NOT_MSGPACK[what])
    assert "not Flax's msgpack, or a truncated one (" in (message := refusal(tmp_path / "a.msgpack"))
    assert "()" not in message


def test_a_msgpack_file_of_arrays_is_read(tmp_path):
    for name, content in (
        ("a", msgpack.packb({"a": packed()})),
        ("params.a", msgpack.packb({"params": {"a": packed()}, "step": 3, "opt_state": {"0": None}})),
        ("a", msgpack.packb({"format": "googlenet-1", "params": {"a": packed()}})),
    ):
        (tmp_path / "a.msgpack").write_bytes(content)
        assert_same(read(tmp_path / "a.msgpack").arrays, {name: np.zeros((2, 3), "f4")})
    counts = {"a": packed(), "count": packed(dtype="int32", code=3)}
    (tmp_path / "a.msgpack").write_bytes(msgpack.packb(counts))
    assert read(tmp_path / "a.msgpack").arrays["count"].dtype == "int32"


# ------------------------------------------------------------------------------------- PyTorch's files: what they hold


class Calls:
    """Is a call of that function, when somebody unpickles it."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


NOT_STATES: dict[str, tuple[Callable[[Any], Any], str]] = {
    "a list": (lambda torch: [torch.ones(2)], "got a list; save model.state_dict()"),
    "a tensor": (lambda torch: torch.ones(2), "got a Tensor"),
    "nothing": (lambda torch: None, "got a NoneType"),
    "a whole model": (lambda torch: torch.nn.Linear(2, 2), "Unsupported global: GLOBAL torch.nn.modules.linear.Linear"),
    "a number as a name": (lambda torch: {1: torch.ones(2)}, "something else as '1'"),
    "a pair as a name": (lambda torch: {("a", 1): torch.ones(2)}, "something else as \"('a', 1)\""),
    "nothing as a name": (lambda torch: {None: torch.ones(2)}, "something else as 'None'"),
    "a name on two lines": (lambda torch: {"a\nb": torch.ones(2)}, r"something else as 'a\nb'"),
    "half a character": (lambda torch: {"\ud800": torch.ones(2)}, r"something else as '\ud800'"),
    "a text": (lambda torch: {"a": "0.5"}, "something else as 'a'"),
    "a list of numbers": (lambda torch: {"a": [0.5]}, "something else as 'a'"),
    "much else": (lambda torch: {"x" * 1000 + str(i): None for i in range(1000)}, "something else as 'xxx"),
    "zero strides": (lambda torch: {"a": torch.ones(1).expand(10**12)}, "got 4000000000000 bytes of them"),
    "zero strides on top": (lambda torch: {"a": torch.ones(1).expand(*[10**6] * 3)}, "got 4000000000000000000 bytes"),
    "overlapping": (lambda torch: {"a": torch.ones(9).as_strided((100, 8), (0, 1))}, "got 3200 bytes"),
    "sparse": (lambda torch: {"a": torch.eye(3).to_sparse()}, "something else as 'a'"),
    "quantized": (lambda torch: {"a": torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)}, "refuses it"),
    "complex": (lambda torch: {"a": torch.ones(2, dtype=torch.complex64)}, "something else as 'a'"),
    "negated later": (lambda torch: {"a": torch.ones(2, dtype=torch.complex64).conj().imag}, "something else as 'a'"),
    "on no device": (lambda torch: {"a": torch.ones(2, device="meta")}, "something else as 'a'"),
    "of eight bits": (lambda torch: {"a": torch.ones(2).to(torch.float8_e4m3fn)}, "something else as 'a'"),
    "of several lengths": (lambda torch: {"a": torch.nested.nested_tensor([torch.ones(2)])}, "something else as 'a'"),
    "a program": (lambda torch: {"a": Calls(eval, "1")}, "Unsupported global: GLOBAL eval"),
    "a program below": (lambda torch: {"state_dict": {"a": torch.ones(2), "b": Calls(eval, "1")}}, "GLOBAL eval"),
    "1 GB of bytes": (lambda torch: {"a": Calls(bytearray, 10**9)}, "it wants a bytearray"),
    "4 GB of numbers": (lambda torch: {"a": Calls(torch.FloatTensor, 10**9)}, "got 4000000000 bytes of them"),
    "1 GB of storage": (lambda torch: {"a": Calls(torch.UntypedStorage, 10**9)}, "something else as 'a'"),
}  # fmt: skip


@needs("pt")
@pytest.mark.filterwarnings("ignore:.*(quantize_per_tensor|prototype stage)")
@pytest.mark.parametrize("what", NOT_STATES)
def test_a_pytorch_file_of_anything_but_tensors_is_refused(what, tmp_path):
    import torch

    state, message = NOT_STATES[what]
    (tmp_path / "a.pt").write_bytes(saved(state(torch)))
    assert message in refusal(tmp_path / "a.pt")


@needs("pt")
def test_the_worker_refuses_what_is_no_plain_tensor_too(tmp_path):
    """Whose check does not rely on the one before."""
    import torch

    from googlenet_pt import files

    for what in ("sparse", "negated later", "on no device", "of eight bits", "complex", "quantized", "zero strides"):
        path = tmp_path / "a.pt"
        path.write_bytes(saved(NOT_STATES[what][0](torch)))
        with pytest.raises(InvalidInput):
            files.read_file(path)
    path.write_bytes(saved(NOT_STATES["a program"][0](torch)))
    with pytest.raises(InvalidInput) as caught:
        files.read_file(path)
    message = assert_one_line(caught.value, path)
    assert "PyTorch refuses it (Unsupported global: GLOBAL eval" in message
    assert "trusted source" not in message


@needs("pt")
def test_a_file_of_pytorch_from_before_1_6_is_read(tmp_path):
    """As torchvision's own weights still are: five pickles, and then the numbers."""
    path = tmp_path / "a.pth"
    path.write_bytes(saved(tensors(TINY), _use_new_zipfile_serialization=False))
    found = read(path)
    assert_same(found.arrays, TINY)
    assert found.texts == {}


def _legacy(content: bytes) -> dict[str, bytes]:
    """Damaged files of before 1.6; the state dict says of conv.weight's storage that it has 18 numbers."""
    asked = b"K\x12Ntq"
    assert content.count(asked) == 1
    return {
        "numbers cut off": content[:-1],
        "the first pickle only": content[:15],
        "a storage of 10^9 numbers": content.replace(asked, b"J\x00\xca\x9a\x3bNtq"),
        "a storage of 10^18 numbers": content.replace(asked, b"\x8a\x08" + (10**18).to_bytes(8, "little") + b"Ntq"),
        "a storage of -1 numbers": content.replace(asked, b"J\xff\xff\xff\xffNtq"),
        "10^9 numbers from the memo": content.replace(asked, b"J\x00\xca\x9a\x3bq\xf0K\x120h\xf0Ntq"),
        "a storage that is asked for later": content.replace(asked, b"K\x12Nt0K\x12Ntq"),
        "a call": content[:21] + b"\x80\x02cposix\nsystem\nX\x04\0\0\0true\x85R." + content[21:],
    }


@needs("pt")
def test_a_damaged_file_of_pytorch_from_before_1_6_is_refused(tmp_path):
    path = tmp_path / "a.pth"
    for damaged in _legacy(saved(tensors(TINY), _use_new_zipfile_serialization=False)).values():
        path.write_bytes(damaged)
        refusal(path)


@needs("pt")
def test_an_archive_behind_something_else_is_refused(tmp_path):
    path = tmp_path / "a.pt"
    path.write_bytes(b"\0" * 10 + tiny("pytorch")["a.pt"])
    assert "got one behind something else" in refusal(path, "pytorch")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_nothing_in_a_file_is_executed(protocol, tmp_path):
    victim = tmp_path / "victim"
    content = pickle.dumps({"a": Calls(os.mkdir, str(victim))}, protocol)
    for suffix in SUFFIXES:
        path = tmp_path / f"a{suffix}"
        path.write_bytes(content)
        refusal(path)
        refusal(path, format_for(path))
    for form in ("huggingface", *(["orbax"] if "jax" in TESTED else [])):
        for name in tiny(form):
            path = place(tmp_path, form, tiny(form) | {name: content})
            assert refused(path, form) or form == "orbax"
    assert not victim.exists()
    pickle.loads(content)
    assert victim.exists()  # so it was a program


@needs("pt")
@pytest.mark.parametrize("where", ["the state", "a value", "a value below", "a name", "beside"])
def test_nothing_in_an_archive_is_executed(where, tmp_path):
    import torch

    from googlenet_pt import files

    victim, path = tmp_path / "victim", tmp_path / "a.pt"
    call, tensor = Calls(os.mkdir, str(victim)), torch.ones(2)
    states = {
        "the state": call,
        "a value": {"a": tensor, "b": call},
        "a value below": {"state_dict": {"a": tensor, "b": call}},
        "a name": {call: tensor},
        "beside": {"state_dict": {"a": tensor}, "epoch": [{"x": (call, 3)}]},
    }
    path.write_bytes(saved(states[where]))
    for form in ("pytorch", None):
        assert "PyTorch refuses it" in refusal(path, form)
    with pytest.raises(InvalidInput, match="PyTorch refuses it"):
        files.read_file(path)
    assert not victim.exists()
    torch.load(path, weights_only=False)
    assert victim.exists()


# ------------------------------------------------------------------------------------ PyTorch's files: the archive


def entries() -> dict[str, bytes]:
    """What is in the archive of `TINY`."""
    with zipfile.ZipFile(io.BytesIO(tiny("pytorch")["a.pt"])) as archive:
        return {entry.filename: archive.read(entry) for entry in archive.infolist()}


Infos = dict[str, zipfile.ZipInfo]  # what the end of an archive says of its entries


def archive(contents: dict[str, bytes], change: Callable[[Infos], Any] = lambda infos: None) -> bytes:
    """Of these entries, after a change to what is said of them."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as writer:
        for name, content in contents.items():
            writer.writestr(zipfile.ZipInfo(name), content)
        change({info.filename: info for info in writer.infolist()})
    return file.getvalue()


def attributes(name: str, **values: Any) -> Callable[[Infos], None]:
    return lambda infos: [setattr(infos[name], key, value) for key, value in values.items()]


PKL, DATA, OURS = "archive/data.pkl", "archive/data/0", "archive/extra/googlenet.json"
CHANGED: dict[str, tuple[Callable[[Infos], Any], str]] = {
    "compressed": (attributes(DATA, compress_type=zipfile.ZIP_DEFLATED), "not a file of PyTorch"),
    "compressed otherwise": (attributes(DATA, compress_type=zipfile.ZIP_LZMA), "'archive/data/0' is not what"),
    "compressed as nobody does": (attributes(DATA, compress_type=77), "not a file of PyTorch"),
    "larger inside": (attributes(DATA, file_size=2**40), "compressed or overlapping entries"),
    "larger outside": (attributes(DATA, compress_size=2**40), "PyTorch refuses it"),
    "one byte more": (attributes(DATA, file_size=73, compress_size=73), "'archive/data/0' is not what"),
    "at another's place": (attributes(DATA, header_offset=0), "'archive/data/0' is not what"),
    "beyond the end": (attributes(DATA, header_offset=2**40), "'archive/data/0' is not what"),
    "another sum": (attributes(DATA, CRC=0), "damaged: 'archive/data/0' is not what its checksum says"),
    "a name twice": (attributes("archive/data/1", filename=DATA), "'archive/data/0' is not what"),
    "in secret": (attributes(DATA, flag_bits=1), "not a file of PyTorch"),
    "another name": (attributes(PKL, filename="a\n.pkl"), r"damaged: 'a\n.pkl' is not what"),
}


@needs("pt")
@pytest.mark.parametrize("what", CHANGED)
def test_an_archive_that_is_not_plain_is_refused(what, tmp_path):
    change, message = CHANGED[what]
    (tmp_path / "a.pt").write_bytes(archive(entries(), change))
    assert message in refusal(tmp_path / "a.pt")


OTHER: dict[str, tuple[dict[str, bytes | None], str]] = {
    "no pickle": ({PKL: None}, "PyTorch refuses it"),
    "two pickles": ({"other/data.pkl": b"N."}, "PyTorch refuses it"),
    "a pickle in capitals": ({"archive/DATA.PKL": b"N."}, "got a NoneType"),
    "a long pickle": ({PKL: b"\x80\x02" + b"N" * 2**22}, "expected at most 4194304 bytes beside the tensors, got 4"),
    "an empty pickle": ({PKL: b""}, "not a file of PyTorch"),
    "a pickle cut off": ({PKL: b"\x80\x02}q\x00"}, "not a file of PyTorch"),
    "a pickle of nothing": ({PKL: b"\x80\x02N."}, "got a NoneType"),
    "what was not kept": ({PKL: b"\x80\x02h\x55."}, "PyTorch refuses it (85); restore a copy"),
    "a call of nothing": ({PKL: b"\x80\x02)R."}, "PyTorch refuses it"),
    "a text of 4 GB": ({PKL: b"\x80\x02X\xff\xff\xff\xffa."}, "not a file of PyTorch"),
    "another version": ({PKL: b"\x80\x04N."}, "PyTorch refuses it"),
    "what came with another version": ({PKL: pickle.dumps({"a": eval}, 4)}, "PyTorch refuses it"),
    "a call": ({PKL: b"\x80\x02cposix\nsystem\nX\x04\0\0\0true\x85R."}, "PyTorch refuses it"),
    "a call as of old": ({PKL: b"(S'true'\niposix\nsystem\n."}, "PyTorch refuses it"),
    "no numbers": ({DATA: None}, "PyTorch refuses it"),
    "numbers of no bytes": ({DATA: b""}, "PyTorch refuses it"),
    "a byte less": ({DATA: bytes(71)}, "PyTorch refuses it"),
    "a byte more": ({DATA: bytes(73)}, "PyTorch refuses it"),
    "no version": ({"archive/version": None}, "PyTorch refuses it"),
    "another order": ({"archive/byteorder": b"middle\n\x1b[2J"}, "PyTorch refuses it (Unknown endianness type: middle"),
    "texts that are a list": ({OURS: b"[]"}, "expected a JSON object"),
    "texts that are numbers": ({OURS: b'{"format": 3}'}, "expected texts"),
    "texts cut off": ({OURS: b"{"}, "not a file of PyTorch"),
    "texts of brackets": ({OURS: b"[" * 100_000}, "not a file of PyTorch"),
    "texts of objects": (
        {OURS: b"[" + b"{}," * 2**21 + b"{}]"},
        "expected at most 4194304 bytes beside the tensors",
    ),
}


@needs("pt")
@pytest.mark.parametrize("what", OTHER)
def test_an_archive_with_other_entries_is_refused(what, tmp_path):
    changes, message = OTHER[what]
    contents = {name: content for name, content in (entries() | changes).items() if content is not None}
    (tmp_path / "a.pt").write_bytes(archive(contents))
    assert message in refusal(tmp_path / "a.pt")


@needs("pt")
def test_wrong_sizes_strides_and_offsets_in_a_pickle_are_refused(tmp_path):
    """Sizes, strides, offsets and counts, changed one by one, with right sums."""
    good, path = entries()[PKL], tmp_path / "a.pt"
    at = [i for i in range(len(good)) if good[i : i + 1] == b"K"]  # small numbers
    assert len(at) > 20
    came_through = 0
    for i in at:
        for number in (b"J\xff\xff\xff\xff", b"J\xff\xff\xff\x7f", b"J\x00\x00\x00\x80", b"\x8a\x08" + b"\x7f" * 8):
            path.write_bytes(archive(entries() | {PKL: good[:i] + number + good[i + 2 :]}))
            came_through += not refused(path, "pytorch")
    assert came_through < len(at) / 4  # strides of sides that are 1


@needs("pt")
def test_tuples_that_would_take_forever_to_hash_are_refused(tmp_path):
    """Two of two of two, a hundred times, as a name: 2^100 steps."""
    double = b"".join(b"h\x00h\x00\x86q\x00" for _ in range(100))
    renamed = b"".join(b"h\x00q\x01h\x01h\x01\x86q\x00" for _ in range(100))
    for steps in (double, renamed, renamed.replace(b"q\x01", b"r\x01\0\0\0")):
        content = b"\x80\x02}(K\x00\x85q\x00" + steps + b"K\x00u."
        (tmp_path / "a.pt").write_bytes(archive(entries() | {PKL: content}))
        assert "it repeats more than 32 tuples" in refusal(tmp_path / "a.pt")


@needs("pt")
def test_a_bomb_is_not_unpacked(tmp_path):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as writer:
        for name, content in entries().items():
            writer.writestr(name, content)
        with writer.open("archive/data/9", "w") as entry:
            for _ in range(64):
                entry.write(bytes(2**20))
    (tmp_path / "a.pt").write_bytes(file.getvalue())
    assert len(file.getvalue()) < 2**20
    assert "compressed or overlapping entries" in refusal(tmp_path / "a.pt")
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as writer:
        writer.writestr(PKL, entries()[PKL])
        writer.writestr("archive/code/data/9", bytes(8 * 2**20))
    (tmp_path / "a.pt").write_bytes(file.getvalue())
    assert "expected at most 4194304 bytes beside the tensors" in refusal(tmp_path / "a.pt")
    said = {name: b"" for name in entries()}
    (tmp_path / "a.pt").write_bytes(archive(said, attributes(DATA, file_size=2**30, compress_type=8)))
    assert "compressed or overlapping entries" in refusal(tmp_path / "a.pt")


@needs("pt")
def test_every_flipped_bit_of_a_tensor_is_noticed_without_our_hash(tmp_path):
    path, good = tmp_path / "a.pt", saved(tensors(TINY))
    for x in TINY.values():
        start = good.index(x.tobytes())
        for at in range(start, start + x.nbytes):
            flipped = bytearray(good)
            flipped[at] ^= 1 << at % 8
            path.write_bytes(flipped)
            with pytest.raises(InvalidInput, match=r"damaged: 'archive/data/\d' is not what its checksum says"):
                read(path)


# ------------------------------------------------------------------------------------------------------ Orbax's folders


@needs("jax")
def test_an_orbax_folder_without_one_of_its_files_is_refused(tmp_path):
    missed = []
    for name in tiny("orbax"):
        path = place(tmp_path, "orbax", {other: content for other, content in tiny("orbax").items() if other != name})
        if refused(path, "orbax"):
            missed.append(name)
        elif name != f"a/{TEXTS}":
            assert_same(read(path).arrays, TINY)
    kinds = {name.split("/")[1] for name in missed}
    assert kinds == {"_METADATA", "manifest.ocdbt", "d"}, missed


@needs("jax")
def test_a_changed_byte_is_noticed_in_every_kind_of_file_of_an_orbax_folder(tmp_path):
    """In every kind of file, at places all over it."""
    noticed = set()
    for name, content in tiny("orbax").items():
        for at in {0, len(content) - 1, *np.random.default_rng(0).integers(0, len(content), 3)}:
            changed = bytearray(content)
            changed[at] ^= 0x11
            if refused(place(tmp_path, "orbax", tiny("orbax") | {name: bytes(changed)}), "orbax"):
                noticed.add(name.split("/")[1])
    assert noticed == {"_METADATA", "manifest.ocdbt", "d", TEXTS}


def rewritten(path: Path, key: str, change: Callable[[bytes], bytes | None]) -> None:
    """Change a value in the database of an Orbax folder, sums and all."""
    import tensorstore as ts

    store = ts.KvStore.open({"driver": "ocdbt", "base": f"file://{path}/"}).result()
    store.write(key, change(store.read(key).result().value)).result()


def described(**values: Any) -> Callable[[bytes], bytes]:
    return lambda content: json.dumps(json.loads(content) | values).encode()


ARRAY, CHUNK = "conv.weight/.zarray", "conv.weight/0.0.0.0"
IN_DATABASE: dict[str, tuple[str, Callable[[bytes], bytes | None], str]] = {
    "no chunk": (CHUNK, lambda content: None, "Orbax cannot read it (NOT_FOUND: chunk {0, 0, 0, 0}"),
    "no description": (ARRAY, lambda content: None, "it is none or damaged"),
    "no sense": (ARRAY, lambda content: content[:-1], "it is none or damaged"),
    "a chunk cut off": (CHUNK, lambda content: content[:-1], "Orbax cannot read it"),
    "a larger shape": (ARRAY, described(shape=[2, 1, 3, 4]), "Orbax cannot read it"),
    "4 TB": (ARRAY, described(shape=[10**6, 10**6, 1, 1]), "bytes of the folder, got 3600000000006"),
    "a huge side": (ARRAY, described(shape=[2**62, 2**62, 1, 1]), "bytes of the folder, got"),
    "a negative side": (ARRAY, described(shape=[-2, 1, 3, 3]), "it is none or damaged"),
    "a dimension less": (ARRAY, described(shape=[2, 1, 9]), "it is none or damaged"),
    "4 TB a chunk": (ARRAY, described(chunks=[10**6, 10**6, 1, 1]), "bytes of the folder, got"),
    "a huge chunk": (ARRAY, described(chunks=[2**62, 2**62, 1, 1]), "it is none or damaged"),
    "an empty chunk": (ARRAY, described(chunks=[0, 1, 3, 3]), "it is none or damaged"),
    "wider numbers": (ARRAY, described(dtype="<f8"), "Orbax cannot read it"),
    "no numbers": (ARRAY, described(dtype="|V4"), "got something else as 'conv.weight'"),
    "complex numbers": (ARRAY, described(dtype="<c8"), "got something else as 'conv.weight'"),
    "texts": (ARRAY, described(dtype="|S4"), "it is none or damaged"),
    "no compression": (ARRAY, described(compressor=None), "Orbax cannot read it"),
    "another compression": (ARRAY, described(compressor={"id": "gzip", "level": 1}), "Orbax cannot read it"),
}


@needs("jax")
@pytest.mark.parametrize("what", IN_DATABASE)
def test_a_changed_database_of_orbax_is_refused(what, tmp_path):
    key, change, message = IN_DATABASE[what]
    path = place(tmp_path, "orbax", tiny("orbax"))
    rewritten(path, key, lambda content: content)
    assert not refused(path, "orbax")
    rewritten(path, key, change)
    assert message in refusal(path)


TREES: dict[str, tuple[Any, str]] = {
    "a list": ([np.zeros(2)], "expected an Orbax checkpoint of arrays in dictionaries"),
    "two paths to a name": ({"a": {"b": np.zeros(2)}, "a.b": np.ones(2)}, "got two of a name"),
    "complex numbers": ({"a": np.zeros(2, "c8")}, "something else as 'a'"),
    "a name on two lines": ({"a\nb": np.zeros(2)}, r"something else as 'a\nb'"),
    "nothing but zeros": ({"a": np.zeros((1000, 1000))}, "got 8000000 bytes"),
}


@needs("jax")
@pytest.mark.parametrize("what", TREES)
def test_an_orbax_checkpoint_of_anything_but_arrays_is_refused(what, tmp_path):
    import orbax.checkpoint as ocp

    tree, message = TREES[what]
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "a", tree)
    assert message in refusal(tmp_path / "a")


@needs("jax")
def test_the_folder_around_an_orbax_checkpoint_is_refused(tmp_path):
    import orbax.checkpoint as ocp

    with ocp.CheckpointManager(tmp_path) as manager:
        manager.save(3, args=ocp.args.StandardSave({"a": np.zeros(2)}))
    assert "name the file or folder in it" in refusal(tmp_path)
    assert "or name the folder in it that has a _METADATA" in refusal(tmp_path / "3")
    assert_same(read(tmp_path / "3" / "default").arrays, {"a": np.zeros(2)})


NOT_TEXTS = {
    "nothing": b"",
    "cut off": b"{",
    "a list": b"[]",
    "a number for a text": b'{"format": 3}',
    "brackets": b"[" * 100_000,
    "no text": b"\xff",
    "a long number": b"3" * 10_000,
}


@needs("jax")
@pytest.mark.parametrize("what", NOT_TEXTS)
def test_damaged_texts_beside_an_orbax_checkpoint_are_refused(what, tmp_path):
    path = place(tmp_path, "orbax", tiny("orbax") | {f"a/{TEXTS}": NOT_TEXTS[what]})
    assert refusal(path).startswith(f"{path / TEXTS}: expected a JSON")


@needs("jax")
def test_texts_beside_an_orbax_checkpoint_are_read_only_from_a_small_file(tmp_path):
    path = place(tmp_path, "orbax", tiny("orbax"))
    with (path / TEXTS).open("wb") as file:
        file.truncate(2**40)  # a hole: it takes no room
    assert "expected at most 4,294,967,296 bytes, as no network here has more, got 1,099" in refusal(path)
    (path / TEXTS).unlink()
    assert read(path).texts == {}
    (path / TEXTS).symlink_to(tmp_path / "nothing")
    assert "No such file" in refusal(path)
    (path / TEXTS).unlink()
    (path / TEXTS).mkdir()
    assert "expected a file, got a folder" in refusal(path)


# ------------------------------------------------------------------------------------- safetensors, of other people

HEADERS = {
    "two arrays of a name": b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
    b'"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}',
    "a type on two lines": b'{"a":{"dtype":"F\\n32\\u001b[2J","shape":[2],"data_offsets":[0,8]}}',
    "a text for an array": b'{"a":"x\\ny"}',
    "an array at the same place": b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},'
    b'"b":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}',
    "a hole": b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}',
    "backwards": b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}',
    "nested": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
}


@pytest.mark.parametrize("what", HEADERS)
@pytest.mark.parametrize("form", ["safetensors", "huggingface"])
def test_a_damaged_header_of_safetensors_is_refused(what, form, tmp_path):
    content = len(HEADERS[what]).to_bytes(8, "little") + HEADERS[what] + bytes(8)
    name = "a.safetensors" if form == "safetensors" else "a/model.safetensors"
    path = place(tmp_path, form, {name: content})
    assert detect(path) == form
    assert "not a safetensors file, or a truncated one" in refusal(path)


def test_of_a_hugging_face_folder_only_the_weights_are_read(tmp_path):
    others = {"a/config.json": b"\xff{", "a/README.md": b"\xff", "a/pytorch_model.bin": pickle.dumps(Calls(eval, "1"))}
    path = place(tmp_path, "huggingface", tiny("huggingface") | others)
    assert_same(read(path).arrays, TINY)
    path = place(tmp_path, "huggingface", others)
    assert "expected a folder with model.safetensors" in refusal(path)
    (path / "model.safetensors").symlink_to(tmp_path / "nothing")
    assert "expected a folder with model.safetensors" in refusal(path)
    assert "there is no such file" in refusal(path, "huggingface")


# ----------------------------------------------------------------------------------------------------------------- fuzz

_EXTREMES = [0, 1, -1, 2**7, 2**8 - 1, 2**15, 2**31 - 1, -(2**31), 2**32 - 1, 2**40, 2**62, 2**63 - 1, -(2**63)]
_INTEGERS = [(1, "little"), (4, "little"), (4, "big"), (8, "little"), (8, "big")]


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """The content after one to three of the things that happen to files."""
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(0, len(content) - 1)))
        match draw(st.sampled_from(["flip", "insert", "delete", "truncate", "splice", "overwrite", "overwrite"])):
            case "flip" if content:
                content = content[:at] + bytes([content[at] ^ 1 << draw(st.integers(0, 7))]) + content[at + 1 :]
            case "insert":
                content = content[:at] + draw(st.binary(min_size=1, max_size=9)) + content[at:]
            case "delete":
                content = content[:at] + content[at + draw(st.sampled_from([1, 2, 4, 8, 60])) :]
            case "truncate":
                content = content[:at]
            case "splice":
                start = draw(st.integers(0, max(0, len(content) - 1)))
                content = content[:at] + content[start : start + draw(st.integers(1, 60))] + content[at:]
            case "overwrite":
                size, order = draw(st.sampled_from(_INTEGERS))
                number = draw(st.sampled_from(_EXTREMES)) % 2 ** (8 * size)
                content = content[:at] + number.to_bytes(size, order) + content[at + size :]
    return content


def fuzzed(examples: int) -> Callable[[Any], Any]:
    quiet = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
    how = settings(
        max_examples=examples, deadline=5000, database=None, phases=[Phase.generate], suppress_health_check=quiet
    )
    return lambda test: seed(1)(how(given(data=st.data())(test)))


def fuzz(form: str, data: st.DataObject, folder: Path) -> None:
    files = tiny(form)
    name = data.draw(st.sampled_from(sorted(files)))
    path = place(folder, form, files | {name: data.draw(damaged(files[name]))})
    with next_to_no_memory():
        refused(path, form)


def fuzz_entry(data: st.DataObject, folder: Path) -> None:
    """What is in an archive changes, and the sums with it."""
    contents = entries()
    name = data.draw(st.sampled_from([PKL, PKL, *sorted(contents)]))
    content = archive(contents | {name: data.draw(damaged(contents[name]))})
    path = place(folder, "pytorch", {"a.pt": content})
    with next_to_no_memory():
        refused(path, "pytorch")


@pytest.mark.parametrize("form", FORMS)
@fuzzed(50)
def test_damage_is_refused_or_changes_nothing(form, data, tmp_path):
    fuzz(form, data, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
@fuzzed(1000)
def test_damage_is_refused_or_changes_nothing_a_thousand_times(form, data, tmp_path):
    fuzz(form, data, tmp_path)


@needs("pt")
@fuzzed(60)
def test_damage_within_an_archive_is_refused_or_changes_nothing(data, tmp_path):
    fuzz_entry(data, tmp_path)


@pytest.mark.slow
@needs("pt")
@fuzzed(1000)
def test_damage_within_an_archive_is_refused_or_changes_nothing_a_thousand_times(data, tmp_path):
    fuzz_entry(data, tmp_path)


@needs("jax")
@fuzzed(15)
def test_damage_to_an_orbax_folder_is_refused_or_changes_nothing(data, tmp_path):
    fuzz("orbax", data, tmp_path)


@pytest.mark.slow
@needs("jax")
@fuzzed(300)
def test_damage_to_an_orbax_folder_is_refused_or_changes_nothing_hundreds_of_times(data, tmp_path):
    fuzz("orbax", data, tmp_path)
