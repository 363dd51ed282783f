"""Backends: which there are, their processes, several devices, and what a machine has."""
