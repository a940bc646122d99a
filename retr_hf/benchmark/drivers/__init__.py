"""One toolkit a file, run on given histories; scripts/benchmark_peers.py starts them.

``run(options, given)`` does what the script's command line asks and returns what it took. But for ours, a driver
imports numpy, torch, its toolkit and nothing of this package that needs more: it runs in the toolkit's environment.
"""
