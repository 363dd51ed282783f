"""What frameworks are told before they are used: MXNet its engine and CUDA's libraries, XLA how to compile."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest
from support import TESTED


@pytest.mark.skipif("mx" not in TESTED or shutil.which("cc") is None, reason="needs the mx backend and a C compiler")
def test_library_is_loaded_after_those_that_it_depends_on(tmp_path):
    """liba needs libz, which no search path leads to: it loads once libz is there, though its name comes first."""
    from googlenet_mx.device import _load_all

    z, a, broken = tmp_path / "libz_of_ours.so", tmp_path / "liba_of_ours.so", tmp_path / "libbroken.so"
    (tmp_path / "z.c").write_text("int z(void) { return 1; }")
    (tmp_path / "a.c").write_text("int z(void); int a(void) { return z(); }")
    build = ["cc", "-shared", "-fPIC", "-o"]
    subprocess.run([*build, z, f"-Wl,-soname,{z.name}", tmp_path / "z.c"], check=True)
    subprocess.run([*build, a, tmp_path / "a.c", f"-L{tmp_path}", f"-l:{z.name}"], check=True)
    broken.write_text("not a library")
    assert _load_all([a, broken]) == [a, broken]
    assert _load_all([broken, a, z]) == [broken]


@pytest.mark.skipif("mx" not in TESTED, reason="MXNet is not tested")
@pytest.mark.parametrize(
    ("given", "cuda", "engine", "spins"),
    [
        ({}, False, "NaiveEngine", "3000"),
        ({"OMP_WAIT_POLICY": "PASSIVE"}, False, "NaiveEngine", None),
        ({"GOMP_SPINCOUNT": "7"}, False, "NaiveEngine", "7"),
        ({}, True, None, None),  # GPUs
        ({"DMLC_NUM_WORKER": "2"}, False, None, None),  # several processes
        ({"MXNET_ENGINE_TYPE": "ThreadedEngine"}, False, "ThreadedEngine", None),  # the user's own choice
    ],
)
def test_one_device_on_a_cpu_gets_the_synchronous_engine(given, cuda, engine, spins, monkeypatch):
    from googlenet_mx import device

    for name in ("MXNET_ENGINE_TYPE", "GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "DMLC_NUM_WORKER"):
        monkeypatch.setenv(name, "")  # so that what is set here goes again at the end
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(device, "_has_cuda", lambda: cuda)
    assert device._choose_engine() == ("MXNET_ENGINE_TYPE" not in given and engine is not None)
    assert (os.environ.get("MXNET_ENGINE_TYPE"), os.environ.get("GOMP_SPINCOUNT")) == (engine, spins)


@pytest.mark.skipif("mx" not in TESTED, reason="MXNet is not tested")
def test_the_engine_starts_without_a_word():
    names = ("MXNET_ENGINE_TYPE", "GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "DMLC_NUM_WORKER")
    env = {name: value for name, value in os.environ.items() if name not in names}
    script = (
        "import googlenet_mx, os; from mxnet import nd; print(nd.ones(2).asnumpy(), os.environ['MXNET_ENGINE_TYPE'])"
    )
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("[1. 1.] NaiveEngine\n", "")


@pytest.mark.skipif("jax" not in TESTED, reason="JAX is not tested")
@pytest.mark.parametrize(
    ("version", "given", "flags"),
    [
        ("0.7.1", None, "--xla_cpu_use_fusion_emitters=false"),
        ("0.7.1", "--xla_dump_to=a", "--xla_dump_to=a"),  # the user's own choice
        ("0.7.1", "", ""),
        ("0.10.2", None, None),  # which may end the process at a flag
    ],
)
def test_xla_compiles_by_its_older_emitters_where_it_has_them(version, given, flags, monkeypatch):
    from googlenet_jax.device import _choose_emitters

    monkeypatch.setenv("XLA_FLAGS", given or "")
    if given is None:
        monkeypatch.delenv("XLA_FLAGS")
    _choose_emitters(version)
    assert os.environ.get("XLA_FLAGS") == flags
