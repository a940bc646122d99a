"""Ranks of the targets, and the metrics made from them."""
