"""Models in files, which are read and not run as code, and rules that read what is written out by hand."""
