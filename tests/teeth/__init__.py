"""Mistakes that the quick tests have to find, and the run that puts each into the code: `make test-teeth`."""
