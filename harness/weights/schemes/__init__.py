"""Whose names: one way to name and lay out a network's arrays each, as tables and rules."""
