"""Why an item is recommended: what its probability loses when one behaviour is taken out of the history.

    w_n = log p(i | h) - log p(i | h without behaviour n),        p(i | h) = softmax of the scores over all items

The route says which behaviours may ask; this says which the score depends on, whatever the model is made of, by
intervention (occlusion; Zeiler & Fergus, ECCV 2014; on tokens as "erasure", Li et al., 2016).

NOTE: what comes before and after a behaviour closes up, so positions move by one, as in a history without it. Two
behaviours that say the same hide one another: without the one, the other still says it.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

SCORES_AT_ONCE = 2**25  # 128 MiB
TOKENS_AT_ONCE = 2**14


@torch.no_grad()
def behavior_weights(
    model,
    item_embeddings: torch.Tensor,
    histories: Sequence[np.ndarray],
    items: Sequence[int],
    pad: Callable[[list[np.ndarray]], Mapping[str, torch.Tensor]],
    read: int,
    **inputs: torch.Tensor,
) -> list[np.ndarray]:
    """w of every behaviour that is read of some histories: float32 [n] each.

    Args:
        model: a recommendation head, in evaluation mode.
        item_embeddings: [M, d] its item table, row 0 padding.
        histories: rows of each whole history, oldest first, int [m], m at least 2.
        items: row of the item that is explained, of each history.
        pad: ``RetrProcessor.pad``.
        read: how many behaviours the model reads, the last ones: n is m or that. Without one of them it reads one more
            of the older ones, where there are.
        inputs: more inputs of the model, the same for all.

    Raises:
        ValueError: a history of one behaviour: without it there is none; a model that samples its routes.
    """
    if model.config.router != "none" and model.config.router_sampling:
        raise ValueError("router_sampling=True draws other routes at every call: what a behaviour does cannot be told")
    if short := sum(len(history) < 2 for history in histories):
        raise ValueError(
            f"{short} of {len(histories)} histories are of one behaviour: without it there is none to compare"
        )
    variants, explained, counts = [], [], []
    for history, item in zip(histories, items, strict=True):
        last = history[-read - 1 :]  # what is left without one of those that are read
        places = range(max(0, len(last) - read), len(last))
        variants += [last, *(np.delete(last, place) for place in places)]
        explained += [item] * (len(places) + 1)
        counts.append(len(places) + 1)
    size = max(1, min(SCORES_AT_ONCE // len(item_embeddings), TOKENS_AT_ONCE // min(read, max(map(len, variants)))))
    found = []
    for start in range(0, len(variants), size):
        batch = {name: each.to(item_embeddings.device) for name, each in pad(variants[start : start + size]).items()}
        scores = model(**batch, item_embeddings=item_embeddings, **inputs).logits.float()
        scores[:, 0] = float("-inf")
        rows = torch.tensor(explained[start : start + size], device=scores.device)
        found.append((scores.gather(1, rows[:, None]).squeeze(1) - scores.logsumexp(1)).cpu())
    of_each = np.split(torch.cat(found).numpy(), np.cumsum(counts)[:-1])
    return [log_p[0] - log_p[1:] for log_p in of_each]
