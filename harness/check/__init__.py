"""Where a network that somebody else wrote differs from one of the spec: start with `checking.py`."""
