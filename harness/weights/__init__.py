"""Weights in files: names, formats, conversion, prediction."""
