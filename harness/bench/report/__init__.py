"""A record of measurements as tables, plots and a page."""
