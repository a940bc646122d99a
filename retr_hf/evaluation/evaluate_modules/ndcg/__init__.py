"""NDCG@k for ``evaluate.load``."""
