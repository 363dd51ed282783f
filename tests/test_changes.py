"""A benchmark against an earlier one: what is compared, what is refused, and what counts as slower."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from support import googlenet

import spec
from harness.bench.analysis.changes import Changes, changes, check_comparable, read_earlier
from harness.bench.candidates import Candidate, candidates, with_twins
from harness.bench.record import SCHEMA, Record, Row, Sample
from harness.bench.report import tables

CONFIG = spec.preset("lenet")
PLACE = {
    "processor": "a processor",
    "processors": 4,
    "used_processors": [0, 1],
    "versions": {"torch": "2.13.0"},
    "variables": {},
}
ABOUT = {"command": "googlenet bench pt mx", "code": {"commit": "0123456", "dirty": False}, "environment": PLACE}
GIVEN = with_twins(candidates(["pt", "mx"], ["tuned"], ["infer"], [2], ["float32"]))


def made(seconds: dict[str, float], given: list[Candidate] = GIVEN, noise: float = 0.01, seed: int = 0) -> Record:
    """A record of ten rounds, in which rows take so many seconds, or one; the noise of the rows is independent."""
    random = np.random.default_rng(seed)
    record = Record(CONFIG, CONFIG.input_size, 10, 0, [Row(candidate, device="cpu") for candidate in given])
    record.about, record.complete = {**ABOUT, "environment": PLACE}, True
    for row in record.rows:
        original = replace(row.candidate, again=False)
        typical = seconds.get(row.candidate.label, seconds.get(original.label, 1.0))
        times = typical * random.lognormal(0, noise, 10)
        row.samples = [Sample(number, 0, 0.0, float(x), 2) for number, x in enumerate(times)]
    return record


def written(record: Record, folder: Path) -> Path:
    path = folder / "bench.json"
    path.write_text(json.dumps(record.as_json()))
    return path


def compared(before: Record, after: Record, folder: Path) -> Changes:
    earlier = read_earlier(written(before, folder), SCHEMA)
    check_comparable(earlier, after)
    return changes(earlier, after)


def test_what_is_slower_by_more_than_the_noise_has_regressed(tmp_path):
    before, after = made({}), made({"pt tuned": 1.2, "mx tuned": 0.8}, seed=1)
    found = compared(before, after, tmp_path)
    assert [(change.candidate.label, change.verdict) for change in found.rows] == [
        ("pt tuned", "slower"),
        ("mx tuned", "faster"),
    ]
    pt, mx = (change.ratio for change in found.rows)
    assert pt.ratio == pytest.approx(1 / 1.2, rel=0.02)
    assert pt.low < 1 / 1.2 < pt.high
    assert mx.ratio == pytest.approx(1 / 0.8, rel=0.02)
    assert found.regressed


def test_what_is_slower_by_less_than_the_twins_differ_has_not_regressed(tmp_path):
    """By 8 %, which the interval shows, while the twins of the run before differed by 20 %."""
    before, after = made({"pt tuned again": 1.2}), made({"mx tuned": 1.08}, seed=1)
    found = compared(before, after, tmp_path)
    (mx,) = (change for change in found.rows if change.candidate.backend == "mx")
    assert mx.ratio.high < 1
    assert mx.noise == pytest.approx(1 - 1 / 1.2, abs=0.02)
    assert mx.verdict == ""
    assert not found.regressed
    assert compared(made({}), after, tmp_path).regressed  # with quiet twins it has


def test_the_same_code_has_not_regressed(tmp_path):
    verdicts = [compared(made({}, seed=seed), made({}, seed=seed + 1), tmp_path).regressed for seed in range(0, 40, 2)]
    assert not any(verdicts)


def test_of_few_rounds_neither_interval_nor_noise_is_known(tmp_path):
    after = made({"pt tuned": 1.2}, seed=1)
    for row in after.rows:
        del row.samples[3:]
    after.changes = compared(made({}), after, tmp_path)
    (times, *others) = tables.sections(after)[-1].lines[0].cells
    assert float(times) == pytest.approx(1 / 1.2, abs=0.05)
    assert others == ["unknown below 5 rounds", "unknown", ""]
    assert not after.changes.regressed


def test_rows_of_only_one_are_named(tmp_path):
    others = with_twins(candidates(["pt", "jax"], ["tuned"], ["infer"], [2], ["float32"]))
    found = compared(made({}), made({}, others), tmp_path)
    assert [str(row) for row in found.only_then] == ["mx tuned, infer, batch 2, float32"]
    assert [str(row) for row in found.only_now] == ["jax tuned, infer, batch 2, float32"]
    assert len(found.rows) == 1


def test_another_device_and_a_busy_machine_are_said_and_not_compared(tmp_path):
    after = made({"pt tuned": 2.0, "mx tuned": 2.0})
    after.rows[0].device = "cuda:0"
    after.rows[1].samples = [replace(x, seconds=0.1 * 3**x.round) for x in after.rows[1].samples]
    found = compared(made({}), after, tmp_path)
    assert [(change.ratio, change.problem) for change in found.rows] == [
        (None, "on cpu then, on cuda:0 now"),
        (None, "not compared, the machine was busy"),
    ]
    assert not found.regressed


def test_versions_variables_and_the_machines_own_speed_are_said(tmp_path):
    before, after = made({}), made({})
    after.about["environment"] = PLACE | {"versions": {"torch": "2.14.0"}, "variables": {"OMP_NUM_THREADS": "1"}}
    for record, speed in ((before, 2e11), (after, 1e11)):
        record.peaks = [{"backend": "pt", "dtype": "float32", "name": "matrix product", "per_second": speed}]
    assert compared(before, after, tmp_path).circumstances == [
        "torch: 2.13.0 then, 2.14.0 now",
        "OMP_NUM_THREADS: none then, 1 now",
        "the machine's own peak in float32: 0.50 times what it was",
    ]


def test_another_machine_network_and_dtype_are_refused_all_at_once(tmp_path):
    earlier = read_earlier(written(made({}), tmp_path), SCHEMA)
    other = with_twins(candidates(["pt"], ["tuned"], ["infer"], [2], ["bfloat16"]))
    record = made({}, other)
    record.config = spec.preset("lenet-bn")
    record.about["environment"] = PLACE | {"processor": "another", "used_processors": [0]}
    with pytest.raises(spec.InvalidInput) as refusal:
        check_comparable(earlier, record)
    assert str(refusal.value).splitlines()[1:] == [
        "  processor: a processor then, another now",
        "  threads: 2 then, 1 now",
        "  preset: lenet then, lenet-bn now",
        "  no row is in both: pt tuned, infer, batch 2, float32; mx tuned, infer, batch 2, float32 then; "
        "pt tuned, infer, batch 2, bfloat16 now",
        "it was made by: googlenet bench pt mx",
    ]


def _changed(**values: object) -> str:
    return json.dumps({**made({}).as_json(), **values})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "got another or a damaged file"),
        ("[" * 9999, "got another or a damaged file"),
        ("{}", "(kind: Field required)"),
        (_changed(kind="profile"), "got one of kind profile"),
        (_changed(schema=1), "got schema 1: measure the earlier code again"),
        (_changed(rows=[{"backend": "pt"}]), "(rows.0.variant: Field required)"),
        (_changed(rows=[{**made({}).as_json()["rows"][0], "samples": [{"seconds": 0}]}]), "(rows.0.samples.0.seconds"),
    ],
    ids=range(7),
)
def test_a_file_that_is_no_benchmark_is_refused_before_any_work(content, said, tmp_path):
    (tmp_path / "old.json").write_text(content)
    done = googlenet("bench", "pt", "--against", str(tmp_path / "old.json"), status=2)
    assert f"--against: {tmp_path}/old.json: expected the bench.json of `googlenet bench --out`" in done.stderr
    assert said in done.stderr


def test_changes_are_shown_and_written(tmp_path):
    record = made({"pt tuned": 1.25}, seed=1)
    record.about |= {"before": {"time": "", "load_average": []}, "after": {"time": "", "load_average": []}}
    record.changes = compared(made({}), record, tmp_path)
    console = Console(width=100, file=io.StringIO())
    tables.render(record, console)
    text = console.file.getvalue()
    assert f"against {tmp_path}/bench.json, of commit 0123456" in text
    (line,) = (line for line in text.splitlines() if line.strip().startswith("pt tuned, infer, batch 2, float32"))
    assert line.split()[-1] == "slower"
    against = record.as_json()["against"]
    assert against["regressed"] is True
    assert [row["verdict"] for row in against["rows"]] == ["slower", None]
