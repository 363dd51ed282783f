"""Backends against the referee, and networks against each other."""
