"""Models in files, which are read and not run as code."""
