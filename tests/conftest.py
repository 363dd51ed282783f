"""The order of the tests, and the processor time that each may take."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import environment  # noqa: F401 (before any framework is imported)
import pytest

# A shell starts what it sends to the background with Ctrl-C ignored, and so would be what the tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

from support import DATA, TESTED

from harness.backends.registry import load

# Seconds of processor time, children's included: a busy machine changes them little. `make test` lists what is above
# LISTED, and fails for what is above a limit.
LISTED = 3.0
TEST_LIMIT = 10.0  # one quick test, its set-up included
END_TO_END_LIMIT = 30.0  # one marked end_to_end
FIXTURE_LIMIT = 40.0  # one fixture of a module or the session: whole networks that JAX compiles, frameworks imported
FIXTURES_LIMIT = 150.0  # all of these


def pytest_report_header() -> list[str]:
    return [f"backends: {', '.join(TESTED)}", f"Fashion-MNIST: {DATA or 'not given (GOOGLENET_DATA)'}"]


@pytest.fixture(scope="session", params=TESTED)
def backend(request: pytest.FixtureRequest) -> ModuleType:
    """Each backend under test; one that cannot be imported fails here, and does not skip."""
    return _imported(request.param)


@pytest.fixture(scope="session")
def first() -> ModuleType:
    """The first backend under test, imported apart from the tests that run commands with it."""
    return _imported(TESTED[0])


def _imported(name: str) -> ModuleType:
    package = load(name)
    if name == "pt":
        import torch._dynamo  # noqa: F401 (which PyTorch's first optimizer would import, in 2 s)
    return package


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """After a file's tests give back what glibc keeps free, and drop what JAX has compiled before it fills the process.

    Each compiled program takes some thousand memory mappings, and Linux allows a process 65,530: about forty networks
    in, compiling ends in a segmentation fault.
    """
    if sys.platform == "linux" and nextitem is not None and nextitem.path != item.path:
        ctypes.CDLL(None).malloc_trim(0)
    compiles = item.stash[_GROUP].endswith(" jax") or nextitem is None or nextitem.path != item.path
    mappings = Path("/proc/self/maps")  # reading it takes milliseconds
    if compiles and "jax" in sys.modules and mappings.exists() and mappings.read_bytes().count(b"\n") > 40_000:
        sys.modules["jax"].clear_caches()


# ------------------------------------------------------------------------------------------------------------- order

# What takes longest comes first, so that the processes of `pytest -n 2` end together.
LONGEST = "networks trajectory loop train parallel convert compare bench formats onnx".split()

_GROUP = pytest.StashKey[str]()


def _group(item: pytest.Item) -> str:
    """The tests that `pytest -n 2 --dist loadgroup` gives to one process, since they share fixtures of a module.

    Those of a file and a backend; a slow test of no backend is on its own.
    """
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    backend = parameters.get("backend")
    if backend is None and item.get_closest_marker("slow"):
        return item.nodeid
    return f"{item.path.stem} {backend or ''}"


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Iterator[None]:
    """Group the tests before pytest-xdist reads the groups, and order them after pytest has done so."""
    for item in items:
        group = item.stash[_GROUP] = _group(item)
        if group != item.nodeid:
            item.add_marker(pytest.mark.xdist_group(group))
    yield
    rank = {f"test_{name}": i for i, name in enumerate(LONGEST)}
    slow = {item.stash[_GROUP] for item in items if item.get_closest_marker("slow")}
    first: dict[str, tuple[bool, int, int]] = {}
    for i, item in enumerate(items):
        group = item.stash[_GROUP]
        first.setdefault(group, (group not in slow, rank.get(item.path.stem, len(rank)), i))
    items.sort(key=lambda item: first[item.stash[_GROUP]])


def pytest_collection_finish(session: pytest.Session) -> None:
    """Keep the garbage collector from thousands of tests, and from looking so often: 7 % of the time of three files."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(5_000)


# ---------------------------------------------------------------------------------------------------- processor time

_BEGUN = pytest.StashKey[float]()
_SHARED = pytest.StashKey[list[tuple[str, float]]]()  # fixtures of a module or the session that a test set up


def _processor_seconds() -> float:
    return sum(os.times()[:4])


class _Meter:
    """Measures quick tests where they run. A plugin: a conftest.py does not hear of the session's fixtures."""

    def __init__(self) -> None:
        self.inner = [0.0]  # seconds of the fixtures set up within those being set up

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> None:
        item.stash[_BEGUN], item.stash[_SHARED] = _processor_seconds(), []

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef, request: pytest.FixtureRequest) -> Iterator[None]:
        """Measure the fixtures that serve more than one test, each without those that it asks for."""
        if fixturedef.scope == "function":
            return (yield)
        begun = _processor_seconds()
        self.inner.append(0.0)
        try:
            return (yield)
        finally:
            seconds = _processor_seconds() - begun
            alone = seconds - self.inner.pop()
            self.inner[-1] += seconds
            item = request._pyfuncitem
            item.stash[_SHARED].append((f"{fixturedef.argname}, for {item.path.name}::{item.name}", alone))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo) -> Iterator[None]:
        """Attach what a quick test took to its last report, and fail the test where that is too much."""
        report = yield
        if call.when != "teardown" or any(item.get_closest_marker(mark) for mark in ("slow", "large", "gpu")):
            return report
        shared = item.stash[_SHARED]
        seconds = _processor_seconds() - item.stash[_BEGUN] - sum(spent for _, spent in shared)
        limit = END_TO_END_LIMIT if item.get_closest_marker("end_to_end") else TEST_LIMIT
        report.user_properties += [("test", item.nodeid, seconds), *(("fixture", *one) for one in shared)]
        slowest, spent = max(shared, key=lambda one: one[1], default=("", 0.0))
        if report.passed and seconds > limit:
            report.outcome = "failed"
            report.longrepr = (
                f"took {seconds:.1f} s of processor time, and a quick test has {limit:.0f}: "
                "make it smaller, or mark it slow"
            )
        elif report.passed and spent > FIXTURE_LIMIT:
            report.outcome = "failed"
            report.longrepr = f"{slowest} took {spent:.1f} s of processor time, and a fixture has {FIXTURE_LIMIT:.0f}"
        return report


class _ProcessorTime:
    """What the quick tests took, collected where the reports of all processes arrive."""

    def __init__(self) -> None:
        self.taken: dict[str, list[tuple[float, str]]] = {"test": [], "fixture": []}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "teardown":
            for kind, *one in report.user_properties:
                if kind in self.taken:
                    name, seconds = one
                    self.taken[kind].append((seconds, name))

    @property
    def in_fixtures(self) -> float:
        return sum(seconds for seconds, _ in self.taken["fixture"])

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.in_fixtures > FIXTURES_LIMIT and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for kind, title in (("test", "quick tests"), ("fixture", "fixtures of quick tests")):
            every = self.taken[kind]
            if not every:
                continue
            above = sorted((one for one in every if one[0] > LISTED), reverse=True)
            terminalreporter.section(f"processor time: {title} above {LISTED:.0f} s", "-")
            for seconds, name in above:
                terminalreporter.write_line(f"{seconds:6.1f} s  {name}")
            terminalreporter.write_line(f"{sum(seconds for seconds, _ in every):6.1f} s  all {len(every)}")
        if self.in_fixtures > FIXTURES_LIMIT:
            terminalreporter.write_line(f"FAILED: fixtures may take {FIXTURES_LIMIT:.0f} s together")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(_Meter())
    if not hasattr(config, "workerinput"):  # pytest-xdist's own processes send their reports here
        config.pluginmanager.register(_ProcessorTime())
