"""What a check has found, as a page for a person to look at."""
