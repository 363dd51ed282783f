"""A benchmark's record as tables, plots and a page."""
