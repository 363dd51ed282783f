"""Training: recipes, runs, the loop, evaluation."""
