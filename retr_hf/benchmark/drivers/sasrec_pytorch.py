"""pmixer's SASRec.pytorch from a checkout: its sampling processes and its model. BCE, one negative a target."""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

from .checkout import checkout
from .clock import Clock, Given, require_loss


def run(options: Any, given: Given) -> dict[str, Any]:
    """Training steps, once the sampling processes have filled their queue."""
    folder, commit = checkout(options)
    import numpy as np
    import torch

    require_loss("bce", options)
    if options.task != "training":
        raise ValueError("sasrec-pytorch has no full ranking: it ranks among 101 candidates")
    if options.inner != options.hidden_size:
        raise ValueError("sasrec-pytorch has feed-forward layers of the hidden size: give --inner the same")
    sys.path.insert(0, folder)
    from model import SASRec
    from utils import WarpSampler

    torch.manual_seed(0)
    shape = argparse.Namespace(
        device="cpu",
        maxlen=options.max_length,
        hidden_units=options.hidden_size,
        num_blocks=options.layers,
        num_heads=options.heads,
        dropout_rate=options.dropout,
        norm_first=False,
    )
    model = SASRec(len(given.histories), given.num_items, shape).train()
    for weight in model.parameters():
        if weight.ndim > 1:
            torch.nn.init.xavier_normal_(weight)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, betas=(0.9, 0.98))
    loss_of = torch.nn.BCEWithLogitsLoss()
    rows = {user: history[:-2] for user, history in enumerate(given.histories, start=1)}
    sampler = WarpSampler(rows, len(rows), given.num_items, options.batch_size, options.max_length, n_workers=3)
    clock = Clock(options.warmup, options.steps)
    try:
        while True:
            if len(clock.marks) == options.warmup:
                # In a long run the queue of batches is full; while it fills, its makers would take the processor.
                since = time.time()
                while sampler.result_queue.qsize() < 30 and time.time() - since < 120:
                    time.sleep(0.05)
            if not clock.next_step():
                break
            users, inputs, positives, negatives = (np.array(part) for part in sampler.next_batch())
            own, other = model(users, inputs, positives, negatives)
            optimizer.zero_grad()
            real = np.where(positives != 0)
            loss = loss_of(own[real], torch.ones_like(own[real])) + loss_of(other[real], torch.zeros_like(other[real]))
            loss.backward()
            optimizer.step()
            clock.read.append((np.count_nonzero(inputs), np.count_nonzero(positives)))
    finally:
        sampler.close()
    return {"version": commit, "torch": torch.__version__} | clock.result()
