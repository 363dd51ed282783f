"""The meaning of the figures: their noise, the work that they stand for, and what has changed since an earlier run."""
