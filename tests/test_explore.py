"""The page of a network: what it knows of the spec, its code, the pictures, the traps and other presets."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support import FIRST, ROOT, googlenet, save_digits, traps, weights_of

import harness.images.sources
import spec
from harness.agreement import probe_params, relative_error
from harness.atomic import write_atomically
from harness.explore import laboratory
from harness.explore.fields import fields
from harness.explore.listings import FRAMEWORKS, listings
from harness.explore.maps import BRANCH, STAGE, branches, feature_maps
from harness.explore.network import comparisons, differences, drawn, names
from harness.weights.checkpoint import save
from harness.weights.formats import FORMATS
from spec import reference
from spec.network import AdaptiveAverage, AveragePool, Block, Conv, Dense, MaxPool, named
from spec.shapes import layer_costs

PAGE = ROOT / "harness" / "explore" / "web"
WORDS = json.loads((PAGE / "words.json").read_text(encoding="utf-8"))
TRAP_WORDS = json.loads((PAGE / "traps.json").read_text(encoding="utf-8"))


def _network(**stages: Any) -> spec.Config:
    return replace(spec.preset("d2l", num_classes=3), table=tuple(stages.items()))


# ----------------------------------------------------------------------------------------------- where a unit looks

LOOKING = _network(
    conv1=Conv(2, 5, stride=2, pad=((2, 1), (0, 2))),
    pool1=MaxPool(3, stride=2, pad=1, ceil=True),
    block=Block((named(one=Conv(2)), named(reduce=Conv(1), five=Conv(2, (5, 3), pad=(2, 1))))),
    mean=AveragePool(2, stride=1),
    grid=AdaptiveAverage(2),
    fc=Dense(3),
)


def test_unit_sees_what_its_field_says_and_nothing_else():
    """Weights and pictures are positive and biases 0, so that a unit is above 0 where it sees a row that is not 0."""
    height, width = 33, 26
    params = {name: np.ones(shape) * (len(shape) > 1) for name, shape in spec.param_shapes(_fitted(33, 26)).items()}
    config, found = _fitted(height, width), fields(_fitted(height, width), (1, height, width))
    rows = np.zeros((height, 1, height, width))
    rows[range(height), 0, range(height)] = 1  # a picture for each row
    columns = np.zeros((width, 1, height, width))
    columns[range(width), 0, :, range(width)] = 1
    for spans, pictures, axis in (("rows", rows, 3), ("columns", columns, 2)):
        for stage, x in reference.activations(config, params, pictures).items():
            seen = (x.reshape(*x.shape, *[1] * (4 - x.ndim)).max(1) > 0).max(axis - 1)  # pictures x units
            lit = [tuple(np.flatnonzero(unit)) for unit in seen.T]
            assert lit == [tuple(range(*span)) for span in getattr(found[stage], spans)], (stage, spans)


def _fitted(height: int, width: int) -> spec.Config:
    """The shapes of the arrays do not depend on the picture here."""
    assert spec.stage_shapes(replace(LOOKING, input_size=33), (1, height, width))
    return replace(LOOKING, input_size=33)


@pytest.mark.parametrize(
    ("name", "size", "stride"),
    [("conv1", 7, 2), ("pool1", 11, 4), ("conv2", 19, 4), ("inception3a", 59, 8), ("inception3a.branch3x3", 43, 8)],
)
def test_receptive_fields_of_googlenet_are_those_that_follow_from_the_paper(name, size, stride):
    found = fields(spec.preset("d2l"), (1, 96, 96))[name]
    assert (found.size, found.stride) == ((size, size), (stride, stride))


def test_behind_the_average_over_the_map_a_unit_sees_the_whole_picture():
    found = fields(spec.preset("d2l"), (1, 96, 96))
    assert [found[name].size for name in ("pool5", "fc")] == [None, None]
    assert found["fc"].rows == ((0, 96),)


# ------------------------------------------------------------------------------------------------------------- code


@pytest.mark.parametrize("preset", ["d2l", "torchvision", "nin", "inception-v3", "inception-resnet-v2"])
def test_every_operation_has_its_lines_in_every_framework(preset):
    config = spec.preset(preset)
    for backend, found in listings(config).items():
        for stage in spec.stage_names(config):
            assert found["stages"][stage], (backend, stage)
        for node in spec.walk(config):
            made = found["nodes"][node.name]
            assert made, (backend, node.name)
            if node.has_weights:
                assert made[-1] == ("Dense" if node.is_dense else "Conv"), (backend, node.name)


@pytest.mark.parametrize("backend", FRAMEWORKS)
def test_lines_are_those_of_the_files(backend):
    found = listings(spec.preset("d2l"))[backend]
    listed = [*found["definitions"].values(), *(x for lines in found["stages"].values() for x in lines)]
    for listing in listed:
        text = (ROOT / listing["file"]).read_text(encoding="utf-8").splitlines()
        first = listing["first"] - 1
        lines = [line.strip() for line in text[first : first + len(listing["lines"])]]
        assert lines == [line.strip() for line in listing["lines"]]
    block = found["definitions"]["Inception"]
    marked = [block["lines"][n - block["first"]] for n in found["marks"]["inception4c.branch5x5"]["Inception"]]
    assert len(marked) == 2
    assert all(re.search(r"\bbranch5x5\b", line) for line in marked)


# ----------------------------------------------------------------------------------------------------- the network


def test_network_is_the_one_of_the_spec():
    config = spec.preset("d2l")
    found, costs = drawn(config, 96), layer_costs(config, (1, 96, 96))
    assert found["parameters"] == spec.parameter_count(config)
    for node in spec.walk(config):
        operation = found["operations"][node.name]
        assert (operation["reads"], operation["out"]) == (node.reads, node.out)
        if len(node.reads) == 1:
            assert operation["into"] == node.into
        cost = costs.get(node.name)
        assert operation["parameters"] == (cost.parameters if cost else 0)
        assert operation["multiply_adds"] == (cost.multiply_adds if cost else 0)
    for what in ("parameters", "multiply_adds"):
        assert sum(stage[what] for stage in found["stages"].values()) == found[what]


def test_a_block_takes_what_its_branches_read():
    assert drawn(spec.preset("d2l"), 96)["operations"]["inception3a"]["into"] == (192, 12, 12)
    operations = drawn(spec.preset("inception-v3"), 299)["operations"]
    assert [operations[name]["into"] for name in ("mixed7c", "mixed7c.branch3x3")] == [(2048, 8, 8), (384, 8, 8)]


@pytest.mark.parametrize("preset", ["bvlc", "inception-v3", "inception-resnet-v2"])
def test_drawing_has_every_operation_once(preset):
    def inside(parts):
        for part in parts:
            if "head" not in part:
                yield part["name"]
            for chain in (*part.get("branches", ()), part.get("chain", ()), part.get("head", ())):
                yield from inside(chain)

    config = spec.preset(preset)
    assert sorted(inside(drawn(config, config.input_size)["layout"])) == sorted(node.name for node in spec.walk(config))


def test_names_are_those_of_other_peoples_files():
    found = names(spec.preset("torchvision"))
    by_scheme = {scheme["name"]: scheme["names"] for scheme in found["schemes"]}
    assert by_scheme["torchvision"]["inception4c.branch5x5.weight"] == "inception4c.branch3.1.conv.weight"
    assert {form: scheme["name"] for scheme in found["schemes"] for form in scheme["formats"]} == {
        form: written.scheme for form, written in FORMATS.items() if written.scheme in by_scheme
    }
    assert by_scheme["canonical"].keys() == spec.param_shapes(spec.preset("torchvision")).keys()


# ----------------------------------------------------------------------------------------- presets beside each other


def test_one_activation_is_all_that_the_first_chinese_edition_differs_in():
    assert differences(spec.preset("d2l"), spec.preset("d2lzh")) == [
        {"what": "activation", "left": "relu", "right": None, "places": ["conv2_reduce", "conv2"]}
    ]


def test_what_one_network_lacks_is_said():
    found = differences(spec.preset("d2l"), spec.preset("bvlc"))
    (missing,) = [x for x in found if x["what"] == "there"]
    assert (missing["left"], missing["right"]) == (False, True)
    assert {"norm1", "norm2", "aux1.fc1"} <= set(missing["places"])
    assert {"what": "ceil", "left": False, "right": True, "places": ["pool1", "pool2", "pool3", "pool4"]} in found


def test_a_network_has_no_differences_from_itself():
    assert differences(spec.preset("torchvision"), spec.preset("torchvision")) == []
    pairs = comparisons(spec.preset("d2l"))["differences"]
    assert len(pairs) == 15  # of six presets
    assert all(pair["differences"] for pair in pairs)


# --------------------------------------------------------------------------------------------------------- pictures


def test_branches_are_the_parts_of_their_stages():
    config = spec.preset("inception-v3", aux=False)
    nodes, found = spec.nodes(config), branches(config, (3, 299, 299))
    parts = [(start, stop) for stage, start, stop in found.values() if stage == "mixed7c"]
    split, double = [(320, 1088), (320, 704), (704, 1088)], [(1088, 1856), (1088, 1472), (1472, 1856)]
    assert parts == [(0, 320), *split, *double, (1856, 2048)]
    assert all(nodes[name].out_channels == stop - start for name, (_, start, stop) in found.items())


def test_strongest_maps_come_first_and_are_the_numbers():
    config = _network(conv1=Conv(40, 3), fc=Dense(3))
    x = np.random.default_rng(0).normal(size=(2, 40, 5, 4))
    (one, _) = feature_maps({"conv1": x}, config, (1, 7, 6))["conv1"]
    strength = np.abs(x[0]).mean((1, 2))
    assert one["channels"] == np.argsort(-strength)[:STAGE].tolist()
    assert one["count"] == 40
    first = x[0, one["channels"][0]]
    peak = first[tuple(one["at"][0])]
    assert abs(peak) == np.abs(first).max()
    assert one["peaks"][0] == pytest.approx(peak, rel=1e-2)
    strip = np.asarray(Image.open(io.BytesIO(base64.b64decode(one["png"]))))
    assert strip.shape == (STAGE * 5, 4)
    assert one["signed"]
    share = (strip[:5].astype(float) - 128) / 127
    assert np.abs(share - first / np.abs(first).max()).max() < 0.005


def test_maps_of_a_branch_are_its_own():
    x = np.zeros((1, 256, 3, 3))
    x[0, 190] = 2.0  # the last of the 3x3 branch, which follows 64 channels
    found = feature_maps({"inception3a": x}, spec.preset("d2l"), (1, 24, 24))
    (three,), (five,) = found["inception3a.branch3x3"], found["inception3a.branch5x5"]
    assert (three["channels"][0], three["peaks"][0], len(three["channels"])) == (190, 2.0, BRANCH)
    assert five["peaks"] == [0.0] * BRANCH
    assert not five["signed"]


# ------------------------------------------------------------------------------------------------------------ traps


@cache
def _scene(preset: str, size: int) -> laboratory.Scene:
    found = traps().scene(preset, size)
    config = replace(found.config, aux=False)
    return laboratory.Scene(config, {name: found.params[name] for name in spec.param_shapes(config)}, found.images)


@cache
def _fallen(preset: str, size: int) -> dict[str, laboratory.Fallen]:
    right = _scene(preset, size)
    expected = reference.activations(right.config, right.params, right.images)
    classes = [[0, 1]] * len(right.images)
    return {name: fallen for name, fallen in laboratory.fall(right, expected, classes) if fallen}


_FIGURES = {  # of docs/porting.md, which the frameworks have measured
    row.split("`")[1]: float(row.split(" | ")[3].split()[0])
    for row in (ROOT / "docs" / "porting.md").read_text().splitlines()
    if row.startswith("| `") and row.count(" | ") == 5 and row.split(" | ")[3][0].isdigit()
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("preset", "size", "known"),
    [
        ("d2l", 96, ("pixels-255", "same-padding", "kernel-square", "kernel-reshaped", "relu-missing", "branch-order")),
        ("bvlc", 96, ("channels-rgb", "pool-floor", "lrn-alpha", "lrn-k")),
        ("torchvision", 64, ("norm-epsilon", "norm-gamma")),
    ],
)
def test_traps_make_the_errors_that_the_frameworks_made(preset, size, known):
    """The same weights and pictures: what a change of the table does in NumPy, the mistake does in the framework."""
    found = _fallen(preset, size)
    for name in known:
        error = found[name].stages["fc"]
        assert error == pytest.approx(_FIGURES[name], rel=0.06), name


def test_a_trap_says_where_it_is_and_from_where_on_stages_differ():
    found = _fallen("d2l", 32)
    assert found["relu-missing"].places == ("conv2_reduce", "conv2")
    assert found["relu-missing"].first == "conv2_reduce"
    assert found["relu-missing"].stages["pool1"] == 0
    assert found["branch-order"].first == "inception3a"
    assert found["branch-order"].places[0] == "inception3a"
    assert found["kernel-square"].places == ("conv2_reduce",)
    assert found["pixels-255"].places == ("images",)
    assert found["bias-missing"].places == tuple(node.name for node in spec.layers(spec.preset("d2l")))


def test_traps_leave_shapes_and_parameters_as_they_were_or_say_so():
    found = _fallen("d2l", 32)
    assert {name for name, fallen in found.items() if fallen.misshapen} == {"pool-ceil"}
    assert found["pool-ceil"].misshapen == "pool1"
    assert found["pool-ceil"].stages["pool1"] is None


def test_a_mistake_that_no_file_would_load_into_is_no_trap():
    """With one more row and column the dense layer would have other weights."""
    config = replace(_network(pool1=MaxPool(3, stride=2), fc=Dense(3)), input_size=8)
    right = laboratory.Scene(config, spec.init_params(config, 0), np.random.default_rng(0).random((1, 1, 8, 8)))
    assert list(laboratory.places(right, laboratory.TRAPS["pool-ceil"](right)))
    found = dict(laboratory.fall(right, reference.activations(*_parts(right)), [[0]]))
    assert found["pool-ceil"] is None
    assert found["flatten-order"] is None  # one channel
    assert found["bias-missing"] is None  # they begin at 0
    assert found["pixels-255"].first == "pool1"


def _parts(scene: laboratory.Scene) -> tuple[Any, ...]:
    return scene.config, scene.params, scene.images


def test_logits_of_a_trap_are_the_referees():
    right = _scene("d2l", 32)
    changed = laboratory.TRAPS["branch-order"](right)
    logits = reference.predict(changed.config, changed.params, changed.images)
    fallen = _fallen("d2l", 32)["branch-order"]
    assert np.allclose(fallen.logits, logits[:, :2], rtol=1e-5)
    assert fallen.stages["fc"] == pytest.approx(
        relative_error(logits, reference.predict(right.config, right.params, right.images)), rel=1e-2
    )


def test_flattening_otherwise_is_what_a_dense_layer_on_the_other_order_computes():
    config = _network(conv1=Conv(4, 3), fc=Dense(3, activation=None))
    config = replace(config, input_size=8)
    params = spec.init_params(config, 0)
    right = laboratory.Scene(config, params, np.random.default_rng(0).random((2, 1, 8, 8)))
    wrong = laboratory.TRAPS["flatten-order"](right)
    x = reference.activations(config, params, right.images)["conv1"].transpose(0, 2, 3, 1).reshape(2, -1)
    expected = x @ params["fc.weight"].T + params["fc.bias"]
    assert np.allclose(reference.predict(wrong.config, wrong.params, wrong.images), expected, atol=1e-12)


def test_every_trap_can_be_made_somewhere():
    made = set()
    for preset in ("lenet-bn", "lenet", "d2l", "bvlc", "inception-v3", "inception-resnet-v2"):
        config = spec.preset(preset, aux=False)
        shape = (config.in_channels, config.input_size, config.input_size)
        if preset.startswith("lenet"):
            params = probe_params(config, 0)
        else:  # what their kernels do is the same there
            params = {name: np.full(x, 0.5) for name, x in spec.param_shapes(config).items() if len(x) == 1}
            params["conv2_reduce.weight"] = np.arange(4.0).reshape(2, 2, 1, 1)
        pictures = np.broadcast_to(np.arange(1.0, shape[0] + 1)[:, None, None], (1, *shape))
        right = laboratory.Scene(config, params, pictures)
        made |= {name for name, change in laboratory.TRAPS.items() if list(laboratory.places(right, change(right)))}
    assert made == set(laboratory.TRAPS)


# ------------------------------------------------------------------------------------------------------------ words


def test_every_word_is_there_in_both_languages():
    for words in (WORDS, *TRAP_WORDS.values()):
        for key, texts in words.items():
            assert len(texts) == 2, key
            assert all(texts), key
    chinese = [texts[1] for key, texts in WORDS.items() if key != "language"]
    assert "池化" not in "".join(chinese)  # 汇聚 in the book
    slots = {key: [set(re.findall(r"\{(\w+)\}", text)) for text in texts] for key, texts in WORDS.items()}
    assert {key: pair for key, pair in slots.items() if pair[0] != pair[1]} == {}


def test_page_asks_for_no_words_that_are_not_there():
    scripts = "".join(path.read_text(encoding="utf-8") for path in PAGE.glob("*.js"))
    asked = set(re.findall(r"""\bt\("(\w+)\"""", scripts))
    assert len(asked) > 60
    assert asked <= WORDS.keys()
    kinds = {x["settings"]["kind"] for preset in ("bvlc", "nin", "inception-resnet-v2") for x in _operations(preset)}
    assert kinds | {f"short_{kind}" for kind in kinds} <= WORDS.keys()
    settings = {what for preset in spec.PRESETS for x in _operations(preset) for what in x["settings"]}
    assert settings <= WORDS.keys()
    values = {"relu", "sigmoid", "ceil_true", "ceil_false", "count_pad_true", "count_pad_false"}
    known = kinds | {f"short_{kind}" for kind in kinds} | settings | values | {"there", "in_channels", "input_size"}
    assert {word for word in WORDS.keys() - known if f'"{word}"' not in scripts} == set()


def test_every_trap_has_words():
    assert TRAP_WORDS.keys() == laboratory.TRAPS.keys()


@cache
def _operations(preset: str) -> list[dict[str, Any]]:
    config = spec.preset(preset)
    return list(drawn(config, config.input_size)["operations"].values())


# ------------------------------------------------------------------------------------------------------ the command


def data_of(page: Path) -> dict[str, Any]:
    """What stands in a page."""
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.DOTALL)
    return json.loads(found)


@pytest.fixture(scope="module")
def lenet(tmp_path_factory) -> tuple[dict[str, Any], Path]:
    """What the command says of a page, and the page: of LeNet, whose classes have dangerous names."""
    folder = tmp_path_factory.mktemp("page")
    weights = weights_of("lenet")
    labels = [f"<img src=x onerror=alert({i})></script>" for i in range(10)]
    metadata = {"labels": labels, "preprocessing": weights.metadata["preprocessing"] | {"size": 28}}
    save(folder / "lenet.safetensors", weights.params, weights.config, metadata)
    said = googlenet(
        "explore", "--weights", "lenet.safetensors", "--out", "page.html", "--backend", FIRST, "--json", cwd=folder
    )
    return json.loads(said.stdout), folder / "page.html"


def test_command_writes_a_page_and_says_what_is_in_it(lenet):
    said, page = lenet
    data = data_of(page)
    assert said["bytes"] == page.stat().st_size < 1e6
    assert max(said["errors"].values()) < 1e-14
    assert list(data["errors"]) == list(said["errors"]) == list(spec.stage_names(spec.preset("lenet")))
    assert [trap["name"] for trap in data["traps"]] == list(said["traps"])
    assert data["network"]["parameters"] == spec.parameter_count(spec.preset("lenet"))
    assert data["computed"]["weights"] == "lenet.safetensors"
    assert len(data["pictures"]) == 4


def test_page_shows_what_the_referee_computes(lenet):
    _, page = lenet
    data = data_of(page)
    weights = weights_of("lenet")
    first = np.asarray(Image.open(io.BytesIO(base64.b64decode(data["pictures"][0]["png"]))))
    image = (first.astype(float) - 0.5) / 0.25  # the file's preprocessing
    logits = reference.predict(weights.config, weights.params, image[None, None])[0]
    shown = {item["class"]: item["logit"] for item in data["pictures"][0]["logits"]}
    assert list(shown.values()) == pytest.approx(sorted(logits, reverse=True), rel=1e-5)
    top = data["pictures"][0]["top"]
    assert [item["probability"] for item in top] == sorted((item["probability"] for item in top), reverse=True)
    assert top[0]["class"] == f"<img src=x onerror=alert({logits.argmax()})></script>"


def test_nothing_from_outside_is_markup(lenet):
    _, page = lenet
    text = page.read_text()
    assert "<img" not in text.replace('<img"', "")
    assert text.count("</script>") == 2


def test_page_lets_nothing_in_and_runs_its_own_script_only(lenet):
    _, page = lenet
    text = page.read_text()
    (script,) = re.findall(r'<script type="module">(.*?)</script>', text, re.DOTALL)
    (style,) = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    known = [base64.b64encode(hashlib.sha256(x.encode()).digest()).decode() for x in (style, script)]
    assert "default-src 'none'; img-src data:; style-src 'sha256-{}'; script-src 'sha256-{}'".format(*known) in text
    addresses = set(re.findall(r"https?://[^\"' )]+", text))
    assert addresses <= {"http://www.w3.org/2000/svg"}


def test_scripts_write_text_and_no_markup():
    scripts = {path.name: path.read_text(encoding="utf-8") for path in PAGE.glob("*.js")}
    for name, text in scripts.items():
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text), name
        assert len(text.splitlines()) < 500


def test_own_pictures_and_a_size(tmp_path):
    save_digits(tmp_path / "digits", 1)
    found = googlenet("explore", "digits/digit 3", "--preset", "lenet", "--backend", FIRST, cwd=tmp_path)
    assert "1 picture of 28 pixels" in found.stdout
    assert data_of(tmp_path / "explore.html")["pictures"][0]["name"] == "0.png"


def test_a_run_on_fashion_mnist_shows_its_test_images(tmp_path, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 28, 28), dtype=np.uint8)
    monkeypatch.setattr(harness.images.sources, "fashion_mnist", lambda part, folder: (pixels, np.arange(20) % 10))
    recipe = {"size": 28, "mean": [0.0], "std": [1.0]}
    run = {"data": "fashion-mnist", "recipe": recipe, "classes": [f"garment {i}" for i in range(10)]}
    save(tmp_path / "run.safetensors", weights_of("lenet").params, spec.preset("lenet"), {"run": run})
    googlenet("explore", "--weights", "run.safetensors", "--backend", FIRST, cwd=tmp_path)
    pictures = data_of(tmp_path / "explore.html")["pictures"]
    assert [picture["name"] for picture in pictures] == [f"Fashion-MNIST, test images, {i}" for i in (1, 2, 3, 4)]
    assert pictures[0]["top"][0]["class"].startswith("garment")
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(pictures[1]["png"])))), pixels[1])


def _refused(tmp_path: Path, *words: str) -> str:
    """The one line of a command that is refused."""
    found = googlenet("explore", *words, cwd=tmp_path, status=2)
    lines = [line for line in found.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, lines
    assert not list(tmp_path.glob("*.html"))
    return lines[0]


def test_bad_input_is_refused_in_one_line(tmp_path):
    (tmp_path / "no.png").write_text("no picture")
    save(tmp_path / "lenet.safetensors", weights_of("lenet").params, spec.preset("lenet"))
    assert "no.png" in _refused(tmp_path, "no.png", "--preset", "lenet")
    assert "missing.png" in _refused(tmp_path, "missing.png", "--preset", "lenet")
    assert "preset lenet" in _refused(tmp_path, "--weights", "lenet.safetensors", "--preset", "d2l")
    assert "there is no folder" in _refused(tmp_path, "--out", "missing/page.html")
    assert "nosuch" in _refused(tmp_path, "--preset", "nosuch")
    assert "cannot take" in _refused(tmp_path, "--preset", "lenet", "--size", "3")
    assert "tf" in _refused(tmp_path, "--backend", "tf")
    save_digits(tmp_path / "digits", 1)
    assert "at most 8 pictures" in _refused(tmp_path, "digits", "--preset", "lenet")
    endless = {name: x.astype(np.float64) for name, x in weights_of("lenet").params.items()}
    endless["fc5.weight"] = np.full_like(endless["fc5.weight"], 1e308)
    preprocessing = weights_of("lenet").metadata["preprocessing"] | {"size": 28}
    save(tmp_path / "endless.safetensors", endless, spec.preset("lenet"), {"preprocessing": preprocessing})
    assert "not finite" in _refused(tmp_path, "--weights", "endless.safetensors", "--backend", FIRST)


def test_a_page_that_was_there_stays_where_something_goes_wrong(tmp_path):
    write_atomically(tmp_path / "page.html", b"before")
    googlenet("explore", "missing.png", "--out", "page.html", cwd=tmp_path, status=2)
    assert (tmp_path / "page.html").read_bytes() == b"before"


def test_a_backend_that_is_wrong_is_told(tmp_path, monkeypatch):
    right = reference.activations

    def off(config, params, images):
        stages = right(config, params, images)
        return stages | {"conv2": stages["conv2"] * (1 + 1e-9)}

    monkeypatch.setattr(reference, "activations", off)
    found = googlenet("explore", "--preset", "lenet", "--backend", FIRST, cwd=tmp_path, status=1)
    assert "off the referee by 1.0e-09, relatively; rounding does not explain it" in found.stdout


@pytest.mark.slow
@pytest.mark.parametrize(("preset", "most"), [("d2l", 5e6), ("torchvision", 20e6)])
def test_whole_page_stays_small(preset, most, tmp_path):
    found = json.loads(googlenet("explore", "--preset", preset, "--backend", FIRST, "--json", cwd=tmp_path).stdout)
    assert found["bytes"] < most
    assert max(found["errors"].values()) < 1e-13
