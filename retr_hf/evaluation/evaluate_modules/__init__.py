"""HR@k, NDCG@k and MRR, one folder each, as ``evaluate.load`` wants them; ``ranked_lists.py`` tells where they are.

`evaluate` copies a module's file and takes the first metric class that it finds in it: a module therefore imports
``ranked_lists`` and not the class, and has one import a line.
"""
