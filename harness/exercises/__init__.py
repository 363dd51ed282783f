"""Exercises that say whether an answer is right, and where it is wrong: start with `catalog.py`."""
