"""The Inception family under its publishers' names, and what its networks with the same arrays have in common."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import save_file
from short import short
from support import TESTED, googlenet, here

import spec
from harness.agreement import probe_params
from harness.weights.checkpoint import Checkpoint
from harness.weights.convert import Source, verified
from harness.weights.equivalence import folded, measured
from harness.weights.formats import foreign as foreign_files
from harness.weights.formats import gluon
from harness.weights.names import SCHEMES, foreign, rename
from harness.weights.recognition import recognize
from spec import InvalidInput

Arrays = dict[str, np.ndarray]


def empty(config: spec.Config, scheme: str = "canonical", value: float = 0.5) -> Arrays:
    """Names and shapes of a file; every number of an array is the same one in memory."""
    shapes = spec.param_shapes(config)
    params = {name: np.broadcast_to(np.float16(value), shape) for name, shape in shapes.items()}
    return foreign(params, SCHEMES[scheme], config)


def found(arrays: Arrays, preset: str | None = None) -> list[tuple[str, bool, int]]:
    """The presets that the arrays are, whether with a scale, and with how many classes."""
    return [(c.preset, c.batch_norm.scale, c.num_classes) for c in recognize(arrays, preset).configs]


# SHA-256 of the lines "name 64x3x7x7" of the publishers' own networks, in their order, made by the packages themselves:
# torchvision 0.28.0, timm 1.0.31, pytorch-fid 0.3, pretrainedmodels 0.7.4 (Cadene), MXNet 1.9.1. timm's v3 has
# torchvision's list, its v4 Cadene's, and torch-fidelity pytorch-fid's. The symbol's is in the order of the alphabet.
PUBLISHED = [
    ("torchvision-v3", "inception-v3", True, "137259a7e18a541b8961502813ecae433db727e161e6b895317cd43b80fccec3"),
    ("torchvision-v3", "inception-v3", False, "f6aacbba8f9766b91f2bd6c02614b9959f17626091f46568716fae92d0672d7a"),
    ("torchvision-v3", "inception-v3-fid", False, "d850f67059aa9732301381f47164821c0a3d6646804fd06515d9b53fffbbd3ef"),
    ("timm", "inception-v4", False, "41f003523812d3d691584f82c6689297b66bc14bf8e86f25d668020808a762c0"),
    ("timm", "inception-resnet-v2", False, "74cc7757e6f322b59fe4272b850592e97a470d8ec296130bc9e1fc17b4019988"),
    ("cadene", "inception-resnet-v2", False, "84dec9b8809adfbeb4d42eb410b1ea16400269baa30d79bd5e93fe87cc59189e"),
    ("cadene", "inception-bn", False, "6b87ce7d2f943150df2cf91f566a145464430a974c058091000213f45886a563"),
    ("gluon-zoo", "inception-v3", False, "343659ae87f1d2c1e07b45fb4ee70f381b5090c580e46ecdf3396790aca3c4ff"),
    ("gluon-zoo-prefixed", "inception-v3", False, "411aae6286f452e0378b7cc260f04d3e73b794f4555b43b4d07d8d5e09898a74"),
    (
        "mxnet-symbol-unnamed",
        "inception-bn-mxnet",
        False,
        "ad50dbfa2d6f3c80ae93e036c83a232d7e0678cf9a106b11b707e0f0fdbbb9e8",
    ),
]


@pytest.mark.parametrize(("scheme", "preset", "aux", "sha256"), PUBLISHED)
def test_the_rules_make_the_lists_of_the_publishers(scheme, preset, aux, sha256):
    config = spec.preset(preset, aux=aux)
    full = foreign_files.renamed(empty(config), SCHEMES[scheme], config)
    lines = [f"{name} {'x'.join(map(str, x.shape))}" for name, x in full.items()]
    lines = sorted(lines) if SCHEMES[scheme].kind == "symbol" else lines
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == sha256


# ---------------------------------------------------------------------------------------------- which network it is


def test_classes_tell_networks_of_the_same_arrays():
    names = {preset: spec.preset(preset, aux=False) for preset in ("inception-v3", "inception-v3-fid")}
    assert found(empty(names["inception-v3"], "torchvision-v3")) == [
        ("inception-v3", True, 1000),
        ("inception-v3-tf", True, 1000),
        ("inception-v3-fid", True, 1000),
    ]
    fid = empty(names["inception-v3-fid"], "torchvision-v3")
    assert found(fid) == [("inception-v3-fid", True, 1008)]
    assert found(fid, "inception-v3") == [("inception-v3", True, 1008)]  # who says so knows better
    background = empty(spec.preset("inception-v3", aux=False, num_classes=1001), "torchvision-v3")
    assert found(background) == [("inception-v3-tf", True, 1001)]


def test_a_head_and_a_missing_scale_tell_networks_too():
    assert found(empty(spec.preset("inception-v3"), "torchvision-v3")) == [("inception-v3", True, 1000)]
    assert found(empty(spec.preset("inception-v3-tf"))) == [("inception-v3-tf", False, 1000)]
    in_gluon = empty(spec.preset("inception-v3-tf"), "gluon")  # whose files hold a scale of 1 then
    assert [preset for preset, _, _ in found(in_gluon)] == ["inception-v3", "inception-v3-tf", "inception-v3-fid"]
    without = spec.preset("inception-resnet-v2", norm_scale=False)
    assert found(empty(without)) == [("inception-resnet-v2", False, 1000)]


def test_a_scale_that_is_not_learned_is_one_in_other_people_s_files():
    config = spec.preset("inception-v3-tf")
    arrays = empty(config, "torchvision-v3")
    assert len(arrays) == len(spec.param_shapes(config)) + 94
    assert found(arrays, "inception-v3-tf") == [("inception-v3-tf", False, 1000)]
    learned = {name: x * 3 if name == "Mixed_7c.branch_pool.bn.weight" else x for name, x in arrays.items()}
    assert found(learned, "inception-v3-tf") == [("inception-v3-tf", True, 1000)]


@pytest.mark.parametrize("before", ["inception30_", "inception312_", ""])
def test_gluon_s_zoo_is_read_whatever_its_number(before):
    arrays = empty(spec.preset("inception-v3", aux=False), "gluon-zoo-prefixed")
    renamed = {before + name.removeprefix("inception30_"): x for name, x in arrays.items()}
    assert found(renamed) == [("inception-v3", True, 1000)]
    assert not recognize(renamed).left_out


def test_batch_norm_of_old_caffe_files_has_rows():
    config = spec.preset("inception-bn")
    arrays = empty(config, "cadene")
    rows = {name: x[None] if "_bn." in name else x for name, x in arrays.items()}
    assert recognize(rows).configs == [config]
    back = rename(rows, SCHEMES["cadene"], config)
    assert {name: x.shape for name, x in back.items()} == spec.param_shapes(config)
    with pytest.raises(InvalidInput, match=r"wrong shape: conv1_7x7_s2.bias: expected \(64,\), got \(1, 64\)"):
        rename(rows | {"conv1_7x7_s2.bias": rows["conv1_7x7_s2.bias"][None]}, SCHEMES["cadene"], config)


# ------------------------------------------------------------------------------------------------- how far they are


@pytest.mark.parametrize(
    ("first", "second", "stage"),
    [
        ("inception-v3", "inception-v3-tf", "mixed5b"),
        ("inception-v3-tf", "inception-v3-fid", "mixed7c"),
        ("inception-bn", "inception-bn-mxnet", "pool1"),
    ],
)
def test_networks_of_the_same_arrays_part_where_their_tables_do(first, second, stage):
    ours, theirs = (short(preset, aux=False if preset == "inception-v3" else None) for preset in (first, second))
    scaled = [replace(config, batch_norm=replace(config.batch_norm, scale=True)) for config in (ours, theirs)]
    params = probe_params(scaled[0], 1)
    apart = measured(*(Checkpoint(params, config) for config in scaled))
    assert apart.presets == (first, second)
    assert apart.stage == stage
    assert apart.logits > 1e-6
    assert f"{first} and {second} part at {stage}, on a picture of noise of {apart.side} pixels a side" in str(apart)
    same = measured(*[Checkpoint(params, scaled[0])] * 2)
    assert (same.stage, same.logits) == (None, 0)


def test_inspect_says_how_far_apart_the_networks_are_that_a_file_may_be(tmp_path):
    gluon.write(tmp_path / "a.params", empty(spec.preset("inception-bn"), "gluon", value=0.0078125), {})
    said = googlenet("inspect", str(tmp_path / "a.params")).stdout
    assert re.search(r"fits preset inception-bn \(.*\nfits preset inception-bn-mxnet \(", said)
    assert "inception-bn and inception-bn-mxnet part at pool1, on a picture of noise of 64 pixels a side" in said
    assert "which one it is, --preset must say" in said


# ------------------------------------------------------------------------------------------------------------ folding


def signed(config: spec.Config, seed: int = 3) -> Checkpoint:
    """Weights whose scales have both signs."""
    params = probe_params(config, seed)
    flip = np.random.Generator(np.random.Philox(seed))
    scales = {name: x * flip.choice((-1, 1), x.shape) for name, x in params.items() if name.endswith("norm.weight")}
    return Checkpoint(params | scales, config)


def with_norm(config: spec.Config, **changed: object) -> spec.Config:
    return replace(config, batch_norm=replace(config.batch_norm, **changed))


FOLDED = {
    "no scale": ("inception-v4", {"scale": False}),
    "no bias": ("inception-bn", {"after_bias": False}),
    "epsilon": ("inception-resnet-v2", {"epsilon": 1e-2}),
    "a scale, a bias and epsilon": ("inception-v3-tf", {"scale": True, "after_bias": True, "epsilon": 1e-5}),
}


@pytest.mark.parametrize("what", FOLDED)
def test_weights_of_another_form_of_batch_norm_compute_the_same(what):
    preset, changed = FOLDED[what]
    target = short(preset)
    source = signed(with_norm(target, **changed))
    result = folded(source, target)
    assert result.config == target
    spec.check_params(target, result.params)
    apart = measured(source, result)
    assert (apart.stage, apart.logits) == (None, pytest.approx(0, abs=1e-12))
    unfolded = {name: source.params.get(name, np.zeros_like(x)) for name, x in result.params.items()}
    assert (measured(source, replace(result, params=unfolded)).logits > 1e-6) is (what != "no bias")


def test_what_batch_norm_s_other_form_cannot_hold_is_refused():
    target = short("inception-v3-tf")
    source = signed(with_norm(target, scale=True))
    scale = source.params["mixed5b.branch1x1.norm.weight"]
    scale[2] = 0
    source.params["mixed6a.branch3x3.norm.weight"][0] *= 100
    with pytest.raises(InvalidInput) as refused:
        folded(source, target)
    assert re.search(
        "^--fold-into inception-v3-tf: expected numbers .*: mixed5b.branch1x1 has a scale of 0; "
        "mixed6a.branch3x3 would have a variance of -0.00.*; keep inception-v3-tf",
        str(refused.value),
    )


def test_networks_that_compute_something_else_are_not_folded():
    source = signed(short("inception-v3", aux=False))
    with pytest.raises(InvalidInput) as refused:
        folded(source, short("inception-v3-fid"))
    said = str(refused.value)
    assert "they differ from mixed5b.pool on (count_pad True and False)" in said
    assert re.search(r"part at mixed5b, on a picture .* their logits differ by 0\.\d+ of the largest", said)
    with pytest.raises(InvalidInput, match="inception-v4: expected a network with the layers of preset inception-v3"):
        folded(source, short("inception-v4"))
    with pytest.raises(InvalidInput, match="leave the auxiliary heads out with --no-aux"):
        folded(signed(short("inception-v3")), short("inception-v3-fid"))


def test_half_precision_is_folded_into_single():
    target = short("inception-v4")
    half = {name: x.astype("float16") for name, x in signed(with_norm(target, scale=False)).params.items()}
    result = folded(Checkpoint(half, with_norm(target, scale=False)), target)
    assert {x.dtype.name for x in result.params.values()} == {"float32"}


def test_a_folded_network_is_held_against_the_source(tmp_path):
    target = short("inception-v3-tf")
    source = signed(with_norm(target, scale=True))
    wrong = folded(source, target)
    wrong.params["mixed6b.branch7x7_2.norm.running_mean"][0] += 0.1
    sides = [Source(tmp_path, "safetensors", SCHEMES["canonical"], x) for x in (source, folded(source, target), wrong)]
    proof = verified(sides[0], sides[1], here)
    assert (proof.passed, proof.bound) == (True, 1e-12)
    assert verified(sides[0], sides[2], here).first_difference == "mixed6b"


@pytest.mark.slow
@pytest.mark.skipif("pt" not in TESTED, reason="PyTorch is not tested")
def test_tensorflow_s_weights_from_timm_become_a_network_without_a_scale(tmp_path):
    """And torchvision's class loads them again, with a scale of 1."""
    config = spec.preset("inception-v3-tf", norm_scale=True)
    params = {name: x.astype("float32") for name, x in signed(config).params.items()}
    save_file(foreign_files.renamed(params, SCHEMES["torchvision-v3"], config), tmp_path / "timm.safetensors")
    folded_into = ("--preset", "inception-v3-tf", "--fold-into", "inception-v3-tf")
    said = googlenet("convert", str(tmp_path / "timm.safetensors"), str(tmp_path / "tf.safetensors"), *folded_into)
    assert "378 tensors, bit for bit" in said.stdout
    assert "no stage by more than 5e-06" in said.stdout
    said = googlenet("convert", str(tmp_path / "tf.safetensors"), str(tmp_path / "a.pt"), "--names", "torchvision")
    assert "the NumPy referee and PyTorch on the same 2 x 3 x 107 x 107 images" in said.stdout
    assert "no stage by more than 1e-12" in said.stdout
    refused = googlenet(
        "convert", str(tmp_path / "tf.safetensors"), str(tmp_path / "b.pt"), "--fold-into", "inception-v3-fid", status=2
    )
    assert "they differ from mixed7c.pool on (AveragePool and MaxPool)" in " ".join(refused.stderr.split())
