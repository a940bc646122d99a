"""Benchmarks: the same work done twice, timed in turns. Like the pipeline it meets all wings; scripts/benchmark.py."""
