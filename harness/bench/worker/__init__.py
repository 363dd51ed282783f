"""The code that runs in a measured process."""
