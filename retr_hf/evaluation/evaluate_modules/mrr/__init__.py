"""MRR for ``evaluate.load``."""
