"""Loading CUDA's libraries for MXNet's CUDA wheel, in an order that nobody writes down."""

from __future__ import annotations

import shutil
import subprocess

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
