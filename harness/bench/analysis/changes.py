"""What has changed since an earlier benchmark: its file, whether it can be compared, and the rows that both have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from harness.atomic import StrPath
from harness.bench.analysis.statistics import Ratio, speed_change, speed_ratio, summarize
from harness.bench.candidates import Candidate
from harness.shown import shown
from spec import InvalidInput

if TYPE_CHECKING:
    from harness.bench.record import Record

_LARGEST = 2**27  # bytes; a day of rounds takes less
Seconds = Mapping[Candidate, Sequence[float]]  # of every round


@dataclass(frozen=True)
class _Sample:
    seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)]


@dataclass(frozen=True)
class _Row(Candidate):
    device: str | None = None
    samples: tuple[_Sample, ...] = ()

    @property
    def candidate(self) -> Candidate:
        return Candidate(**{one.name: getattr(self, one.name) for one in fields(Candidate)})


@dataclass(frozen=True)
class _Settings:
    preset: str
    heads: bool | None
    input: tuple[int, int, int]


@dataclass(frozen=True)
class _Environment:
    processor: str | None
    processors: int | None
    used_processors: tuple[int, ...]
    versions: dict[str, str] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Code:
    commit: str | None


@dataclass(frozen=True)
class _Machine:
    flops_per_second: dict[str, float]


@dataclass(frozen=True)
class Earlier:
    """The parts of an earlier ``bench.json`` that a comparison needs."""

    command: str
    code: _Code
    settings: _Settings
    environment: _Environment
    machine: _Machine
    rows: tuple[_Row, ...]
    path: Path = Path()

    @property
    def seconds(self) -> Seconds:
        """Of every row that was measured."""
        return {row.candidate: [sample.seconds for sample in row.samples] for row in self.rows if row.samples}


@dataclass(frozen=True)
class _Kind:
    kind: str
    schema: int


def read_earlier(path: StrPath, schema: int) -> Earlier:
    """Read the ``bench.json`` of an earlier benchmark.

    Raises:
        InvalidInput: when it is none, or was written in another schema than this one.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST + 1)
    except OSError as error:
        raise InvalidInput(f"--against: {path}: cannot be read ({error.strerror})") from error
    expected = f"--against: {path}: expected the bench.json of `googlenet bench --out`"
    if len(content) > _LARGEST:
        raise InvalidInput(f"{expected}, of at most {_LARGEST:,} bytes")
    try:
        kind = TypeAdapter(_Kind).validate_json(content)
        if kind.kind != "bench":
            raise InvalidInput(f"{expected}, got one of kind {shown(kind.kind)}")
        if kind.schema != schema:
            raise InvalidInput(
                f"{expected} in schema {schema}, got schema {kind.schema}: measure the earlier code again, with the "
                "`harness` of this version"
            )
        return replace(TypeAdapter(Earlier).validate_json(content), path=path)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise InvalidInput(f"{expected}, got another or a damaged file ({shown(place)}: {first['msg']})") from error


def check_comparable(earlier: Earlier, record: Record) -> None:
    """Refuse an earlier benchmark whose figures differ from these for other reasons than the code.

    Raises:
        InvalidInput: naming everything that is not the same.
    """
    then, now = earlier.environment, record.about["environment"]
    config = record.config
    given = {
        "processor": (then.processor, now["processor"]),
        "processors": (then.processors, now["processors"]),
        "threads": (len(then.used_processors), len(now["used_processors"])),
        "preset": (earlier.settings.preset, config.preset),
        "auxiliary heads": (earlier.settings.heads, config.aux),
        "channels, height, width": (earlier.settings.input, (config.in_channels, record.size, record.size)),
    }
    problems = [f"{what}: {before} then, {after} now" for what, (before, after) in given.items() if before != after]
    rows = [row.candidate for row in record.rows]
    if not set(rows) & set(earlier.seconds):
        before, after = ("; ".join(str(row) for row in named if not row.again) for named in (earlier.seconds, rows))
        problems.append(f"no row is in both: {before or 'none'} then; {after} now")
    if problems:
        raise InvalidInput(
            "\n".join(
                [
                    f"--against: {earlier.path}: expected the same machine, network and rows, got",
                    *(f"  {shown(problem)}" for problem in problems),
                    f"it was made by: {shown(earlier.command)}",
                ]
            )
        )


@dataclass(frozen=True)
class Change:
    """One candidate, then and now."""

    candidate: Candidate
    ratio: Ratio | None  # the speed now over the speed then; None where nothing can be said
    noise: float  # the distance from 1 that the same thing measured twice has, in the noisier of the two runs
    problem: str | None = None

    @property
    def verdict(self) -> str:
        """``slower``, ``faster``, or nothing: by an interval that lies wholly beyond the noise."""
        if self.ratio is None:
            return ""
        return "slower" if self.ratio.high < 1 - self.noise else "faster" if self.ratio.low > 1 + self.noise else ""


@dataclass(frozen=True)
class Changes:
    """A benchmark against an earlier one."""

    earlier: Earlier
    rows: list[Change]
    only_then: list[Candidate]
    only_now: list[Candidate]
    circumstances: list[str]  # what else is not as it was

    @property
    def regressed(self) -> bool:
        """Whether a row is slower."""
        return any(change.verdict == "slower" for change in self.rows)

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "file": str(self.earlier.path),
            "commit": self.earlier.code.commit,
            "regressed": self.regressed,
            "rows": [
                {
                    "row": str(change.candidate),
                    **(asdict(change.ratio) if change.ratio else dict.fromkeys(("ratio", "low", "high"))),
                    "noise": change.noise,
                    "verdict": change.verdict or None,
                    "problem": change.problem,
                }
                for change in self.rows
            ],
            "only_then": list(map(str, self.only_then)),
            "only_now": list(map(str, self.only_now)),
            "circumstances": self.circumstances,
        }


def changes(earlier: Earlier, record: Record) -> Changes:
    """Every row that both have been measured in, and the names of those that only one has."""
    then = earlier.seconds
    now = {row.candidate: row.seconds for row in record.rows if row.samples}
    devices = {row.candidate: row.device for row in earlier.rows}
    rows = []
    for row in record.rows:
        candidate = row.candidate
        if candidate.again or candidate not in now or candidate not in then:
            continue
        noise = max(_noise(seconds, candidate.task, candidate.batch) for seconds in (then, now))
        if row.device != devices[candidate]:
            problem = f"on {devices[candidate]} then, on {row.device} now"
        elif summarize(now[candidate]).starved or summarize(then[candidate]).starved:
            problem = "not compared, the machine was busy"
        else:
            rows.append(Change(candidate, speed_change(now[candidate], then[candidate]), noise))
            continue
        rows.append(Change(candidate, None, noise, problem))
    return Changes(
        earlier,
        rows,
        [candidate for candidate in then if candidate not in now and not candidate.again],
        [candidate for candidate in now if candidate not in then and not candidate.again],
        _circumstances(earlier, record),
    )


def _noise(seconds: Seconds, task: str, batch: int) -> float:
    """The floor of noise of a task and batch, by its twins; 0 where a run has none."""
    for candidate, own in seconds.items():
        original = seconds.get(replace(candidate, again=False))
        if candidate.again and original and (candidate.task, candidate.batch) == (task, batch):
            return speed_ratio(own, original).noise
    return 0.0


def _circumstances(earlier: Earlier, record: Record) -> list[str]:
    """Versions, variables and the machine's own speed, where they are not what they were."""
    then, place = earlier.environment, record.about["environment"]
    lines = []
    for before, after in ((then.versions, place["versions"]), (then.variables, place["variables"])):
        lines += [
            f"{name}: {before.get(name, 'none')} then, {after.get(name, 'none')} now"
            for name in sorted({*before, *after})
            if before.get(name) != after.get(name)
        ]
    peaks = record.machine.flops
    lines += [
        f"the machine's own peak in {dtype}: {peaks[dtype] / peak:.2f} times what it was"
        for dtype, peak in earlier.machine.flops_per_second.items()
        if peak > 0 and dtype in peaks
    ]
    return lines
