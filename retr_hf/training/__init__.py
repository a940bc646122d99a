"""Training: strict recipes, the settings they fill, and one loop that runs them."""
