"""The page in a real browser: Debian's Chromium, driven by Playwright. Skipped where there is none."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import FIRST, googlenet, traps, weights_of
from test_explore import data_of

import spec
from harness.weights.checkpoint import save
from spec import reference
from spec.shapes import layer_costs

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: the extra `browser`")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed: the extra `browser`")
CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium: apt-get install chromium"),
]
SIZE = 32  # pixels


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    """d2l's page, for small pictures."""
    folder = tmp_path_factory.mktemp("page")
    googlenet("explore", "--size", str(SIZE), "--out", "page.html", "--backend", FIRST, cwd=folder)
    return folder / "page.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, once for all tests."""
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def open_page(browser, path) -> Iterator[Any]:
    """Opens the page; afterwards nothing may have been said on the console, nor been fetched."""
    said: list[str] = []
    contexts = []

    def opened(hash_: str = "", other: Path | None = None, width: int = 1280, **settings: Any) -> Any:
        settings = {"locale": "en-US"} | settings
        context = browser.new_context(viewport={"width": width, "height": 900}, **settings)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: said.append(request.url) if request.url.startswith("http") else None)
        page.goto(f"file://{other or path}#{hash_}")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert said == []


def _heading(page: Any) -> str:
    return page.inner_text("#heading")


def test_clicks_reach_every_stage_and_every_operation(open_page):
    page = open_page()
    names = page.eval_on_selector_all("#drawing a.node", "all => all.map(a => a.dataset.name)")
    assert sorted(names) == sorted(node.name for node in spec.walk(spec.preset("d2l")))
    for name in names:
        page.eval_on_selector(f'#drawing a.node[data-name="{name}"]', "a => a.dispatchEvent(new MouseEvent('click'))")
        page.wait_for_function("name => document.getElementById('heading').textContent === name", arg=name)
    page.click('#drawing a.node[data-name="inception3a.branch5x5"]')
    assert _heading(page) == "inception3a.branch5x5"
    assert page.get_attribute("#drawing a.node[aria-current]", "data-name") == "inception3a.branch5x5"


def test_what_opens_is_seen_from_its_beginning(open_page):
    page = open_page("inception3a")
    page.evaluate("window.scrollTo(0, 900)")
    page.click('#drawing a.node[data-name="inception3a.pool"]')
    page.wait_for_function("document.getElementById('heading').textContent === 'inception3a.pool'")
    assert 0 <= page.locator("#heading").bounding_box()["y"] < 200


def test_numbers_are_those_of_the_spec(open_page):
    page, config = open_page(), spec.preset("d2l")
    costs = layer_costs(config, (1, SIZE, SIZE))
    for node in spec.walk(config, (1, SIZE, SIZE)):
        page.evaluate("name => { location.hash = name }", node.name)
        page.wait_for_function("name => document.getElementById('heading').textContent === name", arg=node.name)
        facts = dict(
            zip(page.locator(".facts dt").all_inner_texts(), page.locator(".facts dd").all_inner_texts(), strict=True)
        )
        assert facts["output"] == " × ".join(map(str, node.out))
        if node.name in costs:
            assert facts["parameters"].split()[0] == f"{costs[node.name].parameters:,}"
            assert facts["multiply-adds for one picture"].split()[0] == f"{costs[node.name].multiply_adds:,}"
    assert f"{spec.parameter_count(config):,}" in page.inner_text("#header")


def test_logits_of_a_trap_are_those_of_the_referee(open_page, path):
    page = open_page("traps/branch-order")
    rows = page.locator("section:last-of-type table tr")
    shown = [[float(x) for x in row.split()[-2:]] for row in rows.all_inner_texts()]
    found = next(trap for trap in data_of(path)["traps"] if trap["name"] == "branch-order")
    assert [wrong for _, wrong in shown] == pytest.approx(found["logits"][0], rel=1e-3)
    scene = traps().scene("d2l", SIZE)  # the same weights and pictures
    right = reference.predict(scene.config, scene.params, scene.images[:1])[0]
    assert [logit for logit, _ in shown] == pytest.approx(sorted(right, reverse=True), rel=1e-3)
    assert "differ from inception3a on" in page.inner_text(".verdict")
    off = page.eval_on_selector_all("#drawing a.node.off", "all => all.map(a => a.dataset.name)")
    assert off[:2] == ["inception3a", "inception3b"]  # within the first of them nothing is another yet
    assert [name for name in off if name.startswith(("conv", "inception3a."))] == []
    assert "inception3b.branch1x1" in off
    assert page.get_attribute('[data-name="inception3a.pool"]', "aria-label").endswith(", the same")


def test_every_trap_can_be_switched_on_and_off(open_page, path):
    page = open_page("traps")
    for number in range(1, len(data_of(path)["traps"]) + 1):
        page.locator(".switches button").nth(number).press("Enter")
        page.wait_for_selector(".verdict")
        assert page.evaluate("document.activeElement.getAttribute('aria-pressed')") == "true"
        assert page.locator(".switches [aria-pressed=true]").count() == 1
    page.locator(".switches button").first.click()
    page.wait_for_selector(".verdict", state="detached")


def test_differences_light_up(open_page):
    page = open_page("compare/d2l/d2lzh")
    lit = page.eval_on_selector_all("#drawing a.differs", "all => all.map(a => a.dataset.name)")
    assert lit == ["conv2_reduce", "conv2"]
    page.locator("select").nth(1).select_option("bvlc")
    page.wait_for_function("location.hash === '#compare/d2l/bvlc'")
    assert page.locator("#drawing a.differs").count() > 2
    page.locator("select").nth(0).select_option("bvlc")  # the two change places
    page.wait_for_function("location.hash === '#compare/bvlc/d2l'")
    assert page.locator('#drawing a.node[data-name="aux1"]').count() == 1
    page.click("#exchange")
    page.wait_for_function("location.hash === '#compare/d2l/bvlc'")


def test_keys_walk_through_boxes_tabs_and_maps(open_page):
    page = open_page()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the details"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id + location.hash") == "heading"
    page.locator('a.node[data-name="conv1"]').focus()
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.dataset.name") == "pool1"
    page.keyboard.press("Enter")
    page.wait_for_function("document.getElementById('heading').textContent === 'pool1'")
    assert page.evaluate("document.activeElement.dataset.name") == "pool1"  # and the reader walks on from there
    assert page.text_content("#status") == "pool1"
    page.locator("#tab0").focus()
    page.keyboard.press("ArrowRight")
    assert page.inner_text('[role=tab][aria-selected="true"]') == "Gluon"
    assert "googlenet_mx/googlenet.py" in page.inner_text("[role=tabpanel]")
    page.locator(".map").first.focus()
    before = page.inner_text(".told")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert page.inner_text(".told") != before


def test_frame_on_the_picture_is_the_units_field(open_page, path):
    page = open_page("conv1")
    data = data_of(path)
    row, column = data["maps"]["conv1"][0]["at"][0]
    operation = data["network"]["operations"]["conv1"]
    (top, bottom), (left, right) = operation["rows"][row], operation["columns"][column]
    frame = [float(page.get_attribute(".look", what)) for what in ("x", "y", "width", "height")]
    assert frame == [left, top, right - left, bottom - top]


@pytest.mark.parametrize("where", ["%", "constructor", "nosuch.layer", "traps/nosuch", "compare/nosuch/d2l", "a/b/c"])
def test_an_address_that_leads_nowhere_shows_the_network(open_page, where):
    page = open_page(where)
    assert page.locator("#drawing a.node").count() == len(spec.walk(spec.preset("d2l")))
    assert page.inner_text("#heading") in ("How to walk through", "Trap laboratory", "Compare presets")


def test_page_speaks_chinese(open_page):
    page = open_page("traps/relu-missing", locale="zh-CN")
    assert page.evaluate("document.documentElement.lang") == "zh-CN"
    assert "漏掉了 ReLU" in page.inner_text(".verdict")
    page.click("text=English")
    assert page.evaluate("document.activeElement.id") == "language"
    assert "A ReLU left out" in page.inner_text(".verdict")
    page.click("text=中文")
    page.evaluate("location.hash = 'pool1'")
    page.wait_for_function("document.getElementById('heading').textContent === 'pool1'")
    assert "最大汇聚层" in page.inner_text("#panel")


def test_code_stands_side_by_side(open_page):
    page = open_page("inception4c.branch5x5")
    page.click("#beside")
    assert page.locator(".beside h4").all_inner_texts() == ["PyTorch", "Gluon", "Flax"]
    for package in ("googlenet_pt", "googlenet_mx", "googlenet_jax"):
        assert f"{package}/googlenet.py" in page.inner_text(".beside")
    assert page.locator(".beside .marked").count() == 6  # where it is made and where it is called


def test_names_of_files_open(open_page):
    page = open_page("inception4c.branch5x5")
    page.click("summary")
    names = page.locator("details td code").all_inner_texts()
    assert {"inception4c.branch5x5.weight", "3.2.p3_2.weight", "Inception_4.Conv_4.kernel"} <= set(names)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("where", ["", "inception3a.branch5x5", "traps/same-padding", "compare/d2l/torchvision"])
def test_accessibility_check_finds_nothing_serious(open_page, where, scheme):
    page = open_page(where, color_scheme=scheme)
    found = axe.Axe().run(page).response["violations"]
    serious = [x for x in found if x["impact"] in ("serious", "critical")]
    assert [(x["id"], [node["html"][:120] for node in x["nodes"]][:3]) for x in serious] == []


@pytest.mark.parametrize("where", ["", "inception3a", "traps/same-padding", "compare/d2l/torchvision"])
def test_narrow_screen_shows_all_without_scrolling_sideways(open_page, where):
    page = open_page(where, width=400)
    assert page.evaluate("document.documentElement.scrollWidth") <= 400


def test_on_paper_all_is_light_unfolded_and_within_the_margins(open_page):
    page = open_page("inception4c.branch5x5", width=720, color_scheme="dark")
    page.emulate_media(media="print")
    assert page.evaluate("document.documentElement.scrollWidth") <= 720
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert min(map(int, re.findall(r"\d+", paper))) > 240
    shape = page.locator("details td:last-child").first.bounding_box()
    assert shape["height"] > 0
    assert shape["x"] + shape["width"] <= 720
    assert page.locator("nav").is_hidden()


def test_names_from_outside_stay_text(open_page, tmp_path):
    weights = weights_of("lenet")
    labels = [f"<img src=x onerror=alert({i})>" for i in range(10)]
    metadata = {"labels": labels, "preprocessing": weights.metadata["preprocessing"] | {"size": 28}}
    save(tmp_path / "a<b>.safetensors", weights.params, weights.config, metadata)
    googlenet("explore", "--weights", "a<b>.safetensors", "--backend", FIRST, cwd=tmp_path)
    page = open_page(other=tmp_path / "explore.html")
    page.on("dialog", lambda dialog: pytest.fail(dialog.message))
    assert "<img src=x onerror=alert(" in page.inner_text("#panel")
    assert "a<b>.safetensors" in page.inner_text("#panel")
    assert page.locator("#panel img[onerror]").count() == 0
