"""Networks in files: what goes in comes out, and nothing else ever does."""

import hashlib
import json
import os
import pickle
import subprocess
import sys
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support import weights_of

import spec
from harness import atomic
from harness.atomic import write_atomically
from harness.training.curves import draw_confusion
from harness.training.runs import backend_folders, read_metrics, read_settings
from harness.weights import checkpoint, formats
from harness.weights.checkpoint import Checkpoint, load, save
from harness.weights.convert import read_weights
from harness.weights.inspection import examine

# A network with every kind of array: formats do not know topologies.
LENET = spec.preset("lenet-bn")
CONFIG_TEXT = json.dumps({"name": "lenet-bn"})
D2L = spec.preset("d2l")  # of 12 MB, where the size matters


def noise(shapes, dtype, seed=0):
    rng = np.random.default_rng(seed)
    return {name: np.asarray(rng.random(shape, np.float32)).astype(dtype) for name, shape in shapes.items()}


def network(config=LENET, dtype="float16", seed=0):
    return noise(spec.param_shapes(config), dtype, seed)


def state_of(config, slots, dtype="float64"):
    return noise(spec.state_shapes(config, slots), dtype, seed=1)


def content_hash(arrays, texts):
    """The hash that a file must carry, from the description of the format."""
    digest = hashlib.sha256()
    for name, x in sorted(arrays.items()):
        digest.update(f"{name} {x.dtype.str} {x.shape}\n".encode() + x.tobytes())
    digest.update(json.dumps(texts, sort_keys=True).encode())
    return digest.hexdigest()


DTYPES = {"float16": "F16", "float32": "F32", "float64": "F64", "int32": "I32"}


def file_of(arrays, texts):
    """A safetensors file, by hand."""
    header, data = {"__metadata__": texts} if texts is not None else {}, b""
    for name, x in arrays.items():
        offsets = [len(data), len(data) + x.nbytes]
        header[name] = {"dtype": DTYPES[str(x.dtype)], "shape": list(x.shape), "data_offsets": offsets}
        data += x.tobytes()
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def forged(arrays, **changed):
    """A file with any content at all and a hash that is right."""
    texts = {"format": "googlenet-1", "config": CONFIG_TEXT, "metadata": "{}"} | changed
    texts = {key: text for key, text in texts.items() if text is not None}
    return file_of(arrays, texts | {"sha256": content_hash(arrays, texts)})


def header_of(content):
    end = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:end]), content[end:]


def assert_same(arrays, expected):
    assert set(arrays) == set(expected)
    for name, x in expected.items():
        assert (arrays[name].dtype, arrays[name].shape) == (x.dtype, x.shape), name
        assert arrays[name].tobytes() == x.tobytes(), name


def refusal(path):
    """What `load` says of a file that it must refuse."""
    with pytest.raises(spec.InvalidInput) as caught:
        load(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A file with an optimizer's state and metadata; tests that change it must put it back."""
    path = tmp_path_factory.mktemp("good") / "good.safetensors"
    save(path, network(), LENET, {"epoch": 3, "history": [0.5, 0.25]}, {"t": np.array(7.0)})
    return path


# ---------------------------------------------------------------------------------------------------- round trips


METADATA = {"epoch": 3, "seed": 2**64 - 1, "history": [{"loss": 0.1}, None, True], "name": "mañana 日本"}


@pytest.mark.parametrize("name", ["lenet-bn", "lenet-bn-frozen"])
def test_a_network_comes_back_as_it_was(name, tmp_path):
    config = spec.preset(name, num_classes=7, norm_momentum=0.5)
    params, state = network(config, "float32"), state_of(config, ("momentum",), "float32")
    save(tmp_path / "a.safetensors", params, config, METADATA, state)
    found = load(tmp_path / "a.safetensors")
    assert (found.config, found.metadata) == (config, METADATA)
    assert_same(found.params, params)
    assert list(found.params) == list(spec.param_shapes(config))
    assert_same(found.state, state)


SETTINGS = [
    {},
    {"in_channels": 2, "num_classes": 7},
    {"dropout": 0.25, "label_smoothing": 0.1},
    {"aux": False},
    {"aux_weight": 0.5, "dropout": 0.0},
    {"norm_momentum": 0.5},
]


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        (name, settings)
        for name, own in spec.PRESETS.items()
        for settings in SETTINGS
        if own.batch_norm or "norm_momentum" not in settings
    ],
)
def test_the_configuration_comes_back_from_its_text(name, settings):
    config = spec.preset(name, **settings)
    assert checkpoint.config_of(checkpoint.describe({}, config, {})) == config


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_every_precision_comes_back_bit_for_bit(dtype, tmp_path):
    params = network(dtype=dtype)
    params["fc5.bias"][:3] = [np.finfo(dtype).max, np.finfo(dtype).smallest_subnormal, -0.0]
    state = state_of(LENET, spec.Adam().slots, dtype)
    save(tmp_path / "a.safetensors", params, LENET, state=state)
    found = load(tmp_path / "a.safetensors")
    assert_same(found.params, params)
    assert_same(found.state, state)
    assert found.state["t"].shape == ()
    spec.check_state(LENET, spec.Adam().slots, found.state)


def test_the_state_of_an_optimizer_comes_back(tmp_path):
    params, state = network(dtype="float64"), {}
    trained = {name: x for name, x in params.items() if not spec.is_statistic(name)}
    spec.AdamW().update(trained, trained, state)
    save(tmp_path / "a.safetensors", params, LENET, state=state)
    assert_same(load(tmp_path / "a.safetensors").state, {name: np.asarray(x) for name, x in state.items()})


def test_a_file_without_state_and_metadata_has_both_empty(tmp_path):
    params = network()
    save(tmp_path / "a.safetensors", params, LENET)
    found = load(tmp_path / "a.safetensors")
    assert (found.metadata, found.state) == ({}, {})
    assert Checkpoint(params, LENET).state == {}


@pytest.mark.parametrize(
    "stored",
    [
        lambda x: x.astype(x.dtype.newbyteorder(">")),
        np.asfortranarray,
        lambda x: np.repeat(x, 2, axis=-1)[..., ::2],
    ],
    ids=["big-endian", "column by column", "strided"],
)
def test_how_memory_holds_an_array_does_not_matter(stored, tmp_path):
    params = network(dtype="float32")
    save(tmp_path / "plain.safetensors", params, LENET)
    save(tmp_path / "stored.safetensors", {name: stored(x) for name, x in params.items()}, LENET)
    assert_same(load(tmp_path / "stored.safetensors").params, params)
    assert (tmp_path / "stored.safetensors").read_bytes() == (tmp_path / "plain.safetensors").read_bytes()


def test_saving_leaves_the_caller_s_arrays_as_they_are(tmp_path):
    params, state = network(), {"t": np.array(2.0)}
    for x in (*params.values(), *state.values()):
        x.setflags(write=False)
    before = list(params)
    save(tmp_path / "a.safetensors", params, LENET, {"a": 1}, state)
    assert list(params) == before
    assert state["t"].shape == ()


def test_what_was_loaded_outlives_the_file(tmp_path):
    params = network()
    save(tmp_path / "a.safetensors", params, LENET)
    found = load(tmp_path / "a.safetensors")
    (tmp_path / "a.safetensors").write_bytes(b"\xff" * 100)
    assert_same(found.params, params)
    found.params["fc5.bias"][:] = 1  # and may be written to


def test_equal_content_makes_equal_bytes(tmp_path):
    """Whatever the order of the arrays, the hash seed of the process, and the day."""
    params, state = network(), state_of(LENET, ("momentum",), "float16")
    written = set()
    for turn in (lambda d: d, lambda d: dict(reversed(d.items())), lambda d: dict(sorted(d.items()))) * 2:
        save(tmp_path / "a.safetensors", turn(params), LENET, {"epoch": 1}, turn(state))
        written.add((tmp_path / "a.safetensors").read_bytes())
    assert len(written) == 1


@pytest.mark.parametrize(
    "changed", [{"metadata": {"epoch": 2}}, {"config": spec.preset("lenet-bn", aux_weight=0.4)}, {"state": {}}]
)
def test_other_content_has_another_hash(changed, tmp_path):
    arguments = {"params": network(), "config": LENET, "metadata": {"epoch": 1}, "state": {"t": np.array(1.0)}}
    hashes = []
    for kept in (arguments, arguments | changed):
        save(tmp_path / "a.safetensors", **kept)
        hashes.append(header_of((tmp_path / "a.safetensors").read_bytes())[0]["__metadata__"]["sha256"])
    assert hashes[0] != hashes[1]


def test_a_path_may_hold_anything(tmp_path):
    folder = tmp_path / "mañana 日本 & 'x'"
    folder.mkdir()
    path = folder / "a b.ckpt"
    save(path, network(), LENET)
    link = tmp_path / "link"
    link.symlink_to(path)
    assert_same(load(link).params, network())
    assert list(folder.iterdir()) == [path]


# --------------------------------------------------------------------------------------------------- the format


def test_the_file_is_what_the_description_says(good):
    header, data = header_of(good.read_bytes())
    texts = header.pop("__metadata__")
    arrays = {}
    for name, entry in header.items():
        start, stop = entry["data_offsets"]
        dtype = {"F16": "<f2", "F64": "<f8"}[entry["dtype"]]
        arrays[name] = np.frombuffer(data[start:stop], dtype).reshape(entry["shape"])
    assert_same(arrays, network() | {"optimizer/t": np.array(7.0)})
    assert set(texts) == {"format", "config", "metadata", "sha256"}
    assert texts["format"] == "googlenet-1"
    assert spec.preset(**json.loads(texts["config"])) == LENET
    assert json.loads(texts["metadata"]) == {"epoch": 3, "history": [0.5, 0.25]}
    assert texts.pop("sha256") == content_hash(arrays, texts)


def test_files_written_before_stay_readable(tmp_path):
    """The format by hand, and the hash that such a file has always had."""
    zeros = {name: np.zeros(shape, np.float16) for name, shape in spec.param_shapes(D2L).items()}
    content = forged(zeros | {"optimizer/t": np.array(2.0)}, config='{"name": "d2l"}', metadata='{"epoch": 3}')
    assert header_of(content)[0]["__metadata__"]["sha256"][:8] == "5c1b1d71"
    (tmp_path / "a").write_bytes(content)
    found = load(tmp_path / "a")
    assert (found.config, found.metadata, found.state) == (D2L, {"epoch": 3}, {"t": 2.0})
    assert_same(found.params, zeros)


# ------------------------------------------------------------------------------------------------- damaged files


def assert_flips_are_noticed(path, places):
    """Each bit of `places`, flipped: refused, or what is read is what was written."""
    content, expected = path.read_bytes(), load(path)
    silent = []
    with path.open("r+b") as file:
        for place, bit in places:
            for byte in (content[place] ^ 1 << bit, content[place]):
                file.seek(place)
                file.write(bytes([byte]))
                file.flush()
                if byte != content[place]:
                    try:
                        found = load(path)
                    except spec.InvalidInput as error:
                        assert str(path) in str(error)  # noqa: PT017
                        continue
                    assert (found.config, found.metadata) == (expected.config, expected.metadata)
                    assert_same(found.params, expected.params)
                    assert_same(found.state, expected.state)
                    silent.append(place)
    assert path.read_bytes() == content
    return silent


def parts_of(content):
    """Where in a file each part of it begins and ends."""
    header = 8 + int.from_bytes(content[:8], "little")
    texts = content.index(b"}", content.index(b"sha256"))
    return {"length": (0, 8), "metadata": (8, texts), "names": (texts, header), "arrays": (header, len(content))}


@pytest.mark.parametrize("part", ["length", "metadata", "names", "arrays"])
def test_a_flipped_bit_is_noticed(part, good):
    low, high = parts_of(good.read_bytes())[part]
    rng = np.random.default_rng(5)
    places = [(low, 0), (high - 1, 7)]
    places += [(int(rng.integers(low, high)), int(rng.integers(8))) for _ in range(80)]
    assert assert_flips_are_noticed(good, places) == []


def test_a_flipped_bit_of_every_byte_of_the_header_is_noticed(good):
    end = parts_of(good.read_bytes())["names"][1]
    assert assert_flips_are_noticed(good, [(place, place % 8) for place in range(end)]) == []


def test_every_flipped_bit_of_a_tensor_is_noticed(good):
    header, arrays = header_of(good.read_bytes())
    start = good.stat().st_size - len(arrays)
    low, high = (start + offset for offset in header["fc5.bias"]["data_offsets"])
    assert assert_flips_are_noticed(good, [(place, bit) for place in range(low, high) for bit in range(8)]) == []


@pytest.mark.slow
def test_every_flipped_bit_of_the_header_is_noticed(good):
    end = parts_of(good.read_bytes())["names"][1]
    assert assert_flips_are_noticed(good, [(place, bit) for place in range(end) for bit in range(8)]) == []


def test_a_truncated_file_is_noticed(good, tmp_path):
    content = good.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    lengths = {0, 1, 7, 8, 9, 100, end - 1, end, end + 1, len(content) // 2, len(content) - 2, len(content) - 1}
    lengths |= {int(n) for n in np.random.default_rng(6).integers(0, len(content), 20)}
    path = tmp_path / "short"
    path.write_bytes(content)
    for length in sorted(lengths, reverse=True):
        os.truncate(path, length)
        assert "restore it from a copy" in refusal(path), length


def test_a_file_with_a_tail_is_noticed(good, tmp_path):
    (tmp_path / "long").write_bytes(good.read_bytes() + b"\n")
    refusal(tmp_path / "long")


def header_only(header):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text


def tensor(dtype, shape, end):
    return header_only({"a": {"dtype": dtype, "shape": shape, "data_offsets": [0, end]}})


NOT_CHECKPOINTS = {
    "nothing": b"",
    "seven bytes": b"1234567",
    "a length that no file has": (2**63).to_bytes(8, "little") + b"{}",
    "a length of 90 MB": (90_000_000).to_bytes(8, "little") + b"{" + b" " * 100,
    "zeros": bytes(1000),
    "noise": np.random.default_rng(0).bytes(100_000),
    "a page of a server": b"<!DOCTYPE html><html><body>404 Not Contents</body></html>\n" * 20,
    "a compressed file": b"\x1f\x8b\x08\x00" + bytes(range(256)) * 4,
    "a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 23921768\n",
    "an archive as PyTorch writes it": b"PK\x03\x04" + bytes(100),
    "a NumPy array": b"\x93NUMPY\x01\x00v\x00{'descr': '<f8', 'fortran_order': False, 'shape': (3,), }" + b" " * 60,
    "a header that is no JSON": header_only(b"{nothing"),
    "a header that is no UTF-8": header_only(b'{"\xff": 1}'),
    "a header of brackets": header_only(b"[" * 100_000),
    "a header that is a list": header_only(b"[]"),
    "metadata that are no texts": header_only({"__metadata__": {"format": 3}}),
    "a shape of 4 TB": tensor("F32", [2**40], 2**42),
    "a shape that overflows": tensor("F32", [2**40, 2**40], 4) + bytes(4),
    "a negative shape": tensor("F32", [-1], 4) + bytes(4),
    "float8": tensor("F8_E4M3", [1], 1) + bytes(1),
    "another float8": tensor("F8_E5M2", [1], 1) + bytes(1),
    "half bytes": tensor("F4", [1], 1) + bytes(1),
}


@pytest.mark.parametrize("what", NOT_CHECKPOINTS)
def test_a_file_that_is_no_checkpoint_is_refused_at_once(what, tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(NOT_CHECKPOINTS[what])
    tracemalloc.start()
    start = time.process_time()
    message = refusal(path)
    assert time.process_time() - start < 1
    assert tracemalloc.get_traced_memory()[1] < 5e6
    tracemalloc.stop()
    assert "not a safetensors file, or a truncated one" in message


def test_bfloat16_is_refused_in_a_checkpoint_of_ours(tmp_path):
    """We write none: what is read as float32 is not what the file says of itself."""
    texts = {"format": "googlenet-1", "config": CONFIG_TEXT, "metadata": "{}"}
    hashed = hashlib.sha256(b"a <V2 (1,)\n\0\0" + json.dumps(texts, sort_keys=True).encode()).hexdigest()
    entry = {"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]}
    content = header_only({"__metadata__": texts | {"sha256": hashed}, "a": entry}) + bytes(2)
    (tmp_path / "a").write_bytes(content)
    message = refusal(tmp_path / "a")
    assert "damaged: its content has SHA-256" in message


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_nothing_in_a_file_is_executed(protocol, tmp_path):
    victim, content = tmp_path / "victim", pickle.dumps(Payload(tmp_path / "victim"), protocol)
    (tmp_path / "a.safetensors").write_bytes(content)
    refusal(tmp_path / "a.safetensors")
    assert not victim.exists()
    pickle.loads(content)
    assert victim.exists()  # so the payload was one


@pytest.mark.parametrize("path", ["missing.safetensors", "folder", "file/below", "x" * 300])
def test_a_path_without_a_file_is_refused(path, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    refusal(tmp_path / path)


def test_a_link_to_nothing_is_refused(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    assert "there is no such file" in refusal(tmp_path / "link")


# -------------------------------------------------------------------------------- whole files with wrong content


NETWORK = network()


def changed(**arrays):
    """The network with some arrays replaced, or left out where None stands."""
    params = NETWORK | {name.replace("_", "."): x for name, x in arrays.items()}
    return {name: x for name, x in params.items() if x is not None}


FIRST = NETWORK["conv1.weight"]
WRONG_CONTENT = {
    "an array too many": (changed(extra=np.zeros(1)), {}, "unexpected (1):\n    extra (1,)"),
    "an array too few": (changed(fc5_bias=None), {}, "missing (1):\n    fc5.bias (10,)"),
    "another layout": (
        changed(conv1_weight=FIRST.transpose(2, 3, 1, 0).copy()),
        {},
        "conv1.weight: expected (6, 1, 5, 5), got (5, 5, 1, 6); this looks like HWIO",
    ),
    "NaN": (changed(conv1_weight=FIRST * np.float16(np.nan)), {}, "NaN or infinity (1):\n    conv1.weight"),
    "whole numbers": (changed(fc5_bias=np.zeros(10, np.int32)), {}, "fc5.bias: expected floating point, got int32"),
    "another network": (
        NETWORK,
        {"config": '{"name": "lenet-bn", "in_channels": 3}'},
        "conv1.weight: expected (6, 3, 5, 5), got (6, 1, 5, 5)",
    ),
    "an unknown network": (NETWORK, {"config": '{"name": "vgg"}'}, "unknown preset 'vgg'"),
    "a setting that is none": (NETWORK, {"config": '{"name": "lenet-bn", "depth": 3}'}, "depth"),
    "an impossible setting": (
        NETWORK,
        {"config": '{"name": "lenet-bn", "num_classes": 1e400}'},
        "num_classes: expected",
    ),
    "no network": (NETWORK, {"config": None}, "expected a JSON object as 'config' in its metadata, got ''"),
    "no name": (NETWORK, {"config": "{}"}, "name"),
    "a name that is a list": (NETWORK, {"config": '{"name": []}'}, "unhashable"),
    "a list for a network": (NETWORK, {"config": "[]"}, "expected a JSON object as 'config'"),
    "half a network": (NETWORK, {"config": '{"name": "d'}, "expected a JSON object as 'config'"),
    "brackets for a network": (NETWORK, {"config": "[" * 100_000}, "expected a JSON object as 'config'"),
    "no metadata": (NETWORK, {"metadata": None}, "expected a JSON object as 'metadata'"),
    "a number for metadata": (
        NETWORK,
        {"metadata": "1"},
        "expected a JSON object as 'metadata' in its metadata, got",
    ),
    "another format": (NETWORK, {"format": "googlenet-2"}, "expected the format 'googlenet-1' in its metadata, got"),
    "no format": (NETWORK, {"format": None}, "expected the format 'googlenet-1' in its metadata, got None"),
    "half a state": (NETWORK | {"optimizer/m/fc5.bias": np.zeros(10)}, {}, "slots: m) does not fit preset lenet-bn"),
    "a state with NaN": (NETWORK | {"optimizer/t": np.array(np.nan)}, {}, "NaN or infinity (1):\n    t"),
}


@pytest.mark.parametrize("what", WRONG_CONTENT)
def test_wrong_content_is_refused_even_where_its_hash_is_right(what, tmp_path):
    arrays, texts, message = WRONG_CONTENT[what]
    (tmp_path / "a").write_bytes(forged(arrays, **texts))
    assert message in refusal(tmp_path / "a")


def test_a_forged_file_with_right_content_is_read(tmp_path):
    """What the test above changes is what is refused."""
    (tmp_path / "a").write_bytes(forged(network()))
    assert_same(load(tmp_path / "a").params, network())


@pytest.mark.parametrize("texts", [None, {}, {"format": "pt"}])
def test_a_safetensors_file_of_someone_else_is_refused(texts, tmp_path):
    (tmp_path / "a").write_bytes(file_of({"fc5.bias": np.zeros(10)}, texts))
    assert "expected the format 'googlenet-1' in its metadata" in refusal(tmp_path / "a")


@pytest.mark.parametrize("found", [{}, {"sha256": "0" * 64}, {"sha256": ""}])
def test_a_missing_or_wrong_hash_is_refused(found, tmp_path):
    texts = {"format": "googlenet-1", "config": CONFIG_TEXT, "metadata": "{}"}
    (tmp_path / "a").write_bytes(file_of(network(), texts | found))
    assert "damaged" in refusal(tmp_path / "a")


def test_two_arrays_cannot_change_places_unnoticed(good, tmp_path):
    """Same bytes, same header but for two names of equal shape."""
    content = good.read_bytes()
    one, other = b'"conv2.norm.running_mean"', b'"conv2.norm.running_var"'
    swapped = content.replace(one, b"?").replace(other, one).replace(b"?", other, 1)
    assert len(swapped) == len(content)
    (tmp_path / "a").write_bytes(swapped)
    assert "damaged" in refusal(tmp_path / "a")


# ------------------------------------------------------------------------------------------------------- writing


def changed_norm(**values):
    return replace(LENET, batch_norm=replace(LENET.batch_norm, **values))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"params": changed(fc5_bias=None)}, "missing (1):\n    fc5.bias"),
        ({"params": changed(fc5_bias=np.full(10, np.inf))}, "NaN or infinity (1):\n    fc5.bias"),
        ({"params": changed(fc5_bias=np.zeros(10, np.longdouble))}, "arrays of 64 bits at most"),
        ({"state": {"m/fc5.bias": np.zeros(10)}}, "optimizer state (slots: m) does not fit preset lenet-bn"),
        ({"state": {"t": np.zeros(1)}}, "t: expected (), got (1,)"),
        ({"state": {"t": np.array(None)}}, "t: expected floating point, got object"),
        ({"metadata": {"when": object()}}, "expected JSON as metadata"),
        ({"metadata": {"loss": np.float32(1)}}, "expected JSON as metadata"),
        ({"config": changed_norm(epsilon=1e-3)}, "expected one that spec.preset makes, got a changed 'lenet-bn'"),
        ({"config": replace(LENET, dropout=0.5)}, "expected one that spec.preset makes, got a changed 'lenet-bn'"),
        ({"config": replace(LENET, preset="mine")}, "expected one that spec.preset makes, got a changed 'mine'"),
    ],
)
def test_content_that_could_not_be_read_is_not_written(arguments, message, tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"what stood there")
    with pytest.raises(spec.InvalidInput) as caught:
        save(path, **({"params": network(), "config": LENET} | arguments))
    assert message in str(caught.value)
    assert path.read_bytes() == b"what stood there"
    assert list(tmp_path.iterdir()) == [path]


def test_a_new_file_takes_the_place_of_the_old_one(tmp_path):
    path = tmp_path / "a.safetensors"
    (tmp_path / "a.safetensors.partial").write_bytes(b"what a killed process left")
    for seed in (1, 2):
        save(path, network(seed=seed), LENET, {"seed": seed})
        assert load(path).metadata == {"seed": seed}
        assert_same(load(path).params, network(seed=seed))
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("error", "raised"),
    [(OSError(28, "No space left on device"), spec.InvalidInput), (KeyboardInterrupt(), KeyboardInterrupt)],
    ids=["disk full", "interrupted"],
)
@pytest.mark.parametrize("where", ["fsync", "replace"])
def test_a_failure_leaves_the_old_file_and_nothing_beside_it(where, error, raised, monkeypatch, tmp_path):
    path = tmp_path / "a.safetensors"
    save(path, network(seed=1), LENET)

    def fail(*_):
        assert path.with_name("a.safetensors.partial").exists()
        raise error

    monkeypatch.setattr(*{"fsync": (atomic.os, "fsync", fail), "replace": (Path, "replace", fail)}[where])
    with pytest.raises(raised) as caught:
        save(path, network(seed=2), LENET)
    monkeypatch.undo()
    if raised is spec.InvalidInput:
        expected = f"{path}: cannot be written (No space left on device); what was there before is unchanged"
        assert str(caught.value) == expected
    assert_same(load(path).params, network(seed=1))
    assert list(tmp_path.iterdir()) == [path]


FILL_THE_DISK = """
import resource, sys
from pathlib import Path
import spec
from harness.weights import checkpoint
path = Path(sys.argv[1])
found = checkpoint.load(path)
resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, 2**16))
try:
    checkpoint.save(path, {name: 0 * x for name, x in found.params.items()}, found.config)
except spec.InvalidInput as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_a_full_disk_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    path = tmp_path / "a.safetensors"
    save(path, network(), LENET)
    command = [sys.executable, "-c", FILL_THE_DISK, str(path)]
    root = Path(spec.__file__).parents[1]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root, timeout=60)
    assert f"{path}: cannot be written (File too large)" in done.stdout
    assert_same(load(path).params, network())
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("path", ["missing/a", "file/a", "x" * 255, "folder"])
def test_a_path_that_cannot_be_written_is_refused(path, tmp_path):
    """A folder that is not there, one that is a file, a name too long for another ending, a folder's name."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"kept")
    with pytest.raises(spec.InvalidInput, match="cannot be written") as caught:
        write_atomically(tmp_path / path, b"content")
    assert str(tmp_path / path) in str(caught.value)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "folder"]
    assert (tmp_path / "file").read_bytes() == b"kept"


def test_a_folder_that_cannot_be_synchronized_does_not_fail_a_file_in_place(monkeypatch, tmp_path):
    """Some network file systems refuse it; by then the file has its name."""
    original = os.open

    def refuse(path, flags, *rest, **named):
        if flags & os.O_DIRECTORY:
            raise OSError(22, "Invalid argument")
        return original(path, flags, *rest, **named)

    monkeypatch.setattr(atomic.os, "open", refuse)
    write_atomically(tmp_path / "a", b"content")
    assert (tmp_path / "a").read_bytes() == b"content"


# -------------------------------------------------------------------------------------------------------- memory


def test_loading_takes_the_memory_of_the_file_and_little_more(tmp_path):
    save(tmp_path / "a", network(D2L), D2L)
    tracemalloc.start()
    load(tmp_path / "a")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.5 * (tmp_path / "a").stat().st_size  # 1.03 measured


def test_saving_takes_twice_the_memory_of_the_file_and_little_more(tmp_path):
    params = network(D2L)
    tracemalloc.start()
    save(tmp_path / "a", params, D2L)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2.5 * (tmp_path / "a").stat().st_size


def test_a_path_may_be_a_string(tmp_path):
    """In every function that a user's program calls with one."""
    weights = weights_of("lenet")
    path = f"{tmp_path}/a.safetensors"
    checkpoint.save(path, weights.params, weights.config)
    assert checkpoint.load(path).config == weights.config
    assert not checkpoint.holds_training(path)
    assert formats.detect(path) == formats.format_for(path) == "safetensors"
    assert read_weights(path, run_task=None).weights.config == weights.config
    assert examine(path, run_task=None).sound
    assert read_metrics(str(tmp_path)) == []
    assert backend_folders(str(tmp_path)) == {}
    with pytest.raises(spec.InvalidInput, match="expected the folder of a run"):
        read_settings(str(tmp_path))
    draw_confusion(np.eye(2, dtype=np.int64), ["a", "b"], f"{tmp_path}/a.svg", "a run")
    assert (tmp_path / "a.svg").is_file()
