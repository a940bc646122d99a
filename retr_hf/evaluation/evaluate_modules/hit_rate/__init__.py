"""HR@k for ``evaluate.load``."""
