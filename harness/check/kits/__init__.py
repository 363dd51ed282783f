"""Conformance kits, and what other programs compute on them: start with `kit.py`, then `judging.py`."""
