"""Everything that wants a GPU, in one run of a few minutes: `python -m harness.gpu`, or `make gpu`.

`plan.py` has the parts and goes through them, `sensors.py` reads the GPU meanwhile, `page.py` writes what came of it.
"""
