"""BehaviorCache: what is kept of each user while serving, so that one more behaviour costs O(N d). Torch only.

A causal body never changes its mind about the past: with positions counted from the first item, the tokens of a
history are the same whatever follows. So each block keeps the projected keys of its tokens and the router's running
sums; a new behaviour asks them, and leaves its own.

Letters: U users, N items in the window, d width, L blocks, M rows of the item table, k users of one call.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import nn

from .block_cache import BlockCache
from .body_retr import RetrModel

WINDOWS_AT_ONCE = 32  # windows encoded in one pass: more of them take memory and, on a CPU, time


class BehaviorCache:
    """Last states of U users whose histories grow item by item, equal to full passes over their windows.

    ``start`` gives users a history in one pass, ``append`` adds one item to each of some users, ``states`` are what a
    head scores with, ``routes`` is the pathway. Every user begins empty; empty, short and full ones mix in a call.

    Cost of an appended item, each block: O(N d + d²); a full pass takes O(N² d + N d²).
    NOTE: up to N items only. The body reads the N most recent ones, so the next item shifts every position by one and
    with it every token: from then on an item costs a pass over the window, O(N² d + N d²).
    NOTE: equal up to rounding: a token whose keep probability is within rounding of 0.5 may go the other way.
    NOTE: what is kept belongs to these weights; after a training step ``start`` anew.

    Args:
        body: the body, in evaluation mode, causal, with a kernel that takes a mask (sdpa or eager).
        item_embeddings: [M, d] item table, row 0 padding (``encode_catalog``), on the body's device. Rows may follow
            later: ``cache.item_embeddings = torch.cat([cache.item_embeddings, more])``.
        users: how many users U.
        window: items N of a history that are read, at most (and by default) ``max_position_embeddings``.

    Attributes:
        lengths: int64 [U] items in each window, on the CPU.
        rows: int64 [U, N] table rows of each window, oldest first, on the CPU; 0 from ``lengths`` on.

    Raises:
        ValueError: a body whose past may change or is drawn at random (training, ``router_context="global"``,
            ``positions_from="last"``, ``router_sampling``), whose kernel takes no mask, or whose attention reads times
            or marks; no users; a window the body has no positions for.
    """

    def __init__(self, body: RetrModel, item_embeddings: torch.Tensor, users: int, window: int | None = None):
        longest = body.config.max_position_embeddings
        window = longest if window is None else window
        if users < 1 or not 1 <= window <= longest:
            raise ValueError(f"users={users}, window={window}: expected at least 1, and a window of at most {longest}")
        _require_fixed_past(body)
        self.body, self.item_embeddings = body, item_embeddings
        self.lengths = torch.zeros(users, dtype=torch.long)
        self.rows = torch.zeros(users, window, dtype=torch.long)
        with torch.no_grad():
            token = self._tokens(self.rows[:1, :1], self.lengths[:1])  # [1, 1, d]: any, for dtype and device
            self._states = token.new_zeros(users, token.shape[-1])
            self._blocks = [BlockCache(layer, tuple(self.rows.shape), token) for layer in body.layers]

    @property
    def bytes_per_user(self) -> int:
        """Memory of one user, full or not: about 8 N L d bytes for full attention in float32."""
        kept = [self.lengths, self.rows, self._states]
        for block in self._blocks:
            kept += [*block.keys, *block.sums, *block.shown]
        return sum(part[0].numel() * part.element_size() for part in kept)

    def states(self, users: Sequence[int] | torch.Tensor | None = None) -> torch.Tensor:
        """Last states [k, d] of some users (None: all), a copy; zeros for an empty history.

        A head's ``query_vectors`` makes of them, and of ``recent``, what its ``encode_users`` returns.
        """
        return self._states[self.numbers(users).to(self._states.device)]

    def recent(self, users: Sequence[int] | torch.Tensor | None = None) -> torch.Tensor:
        """Windows of some users (None: all), newest item first: table rows int64 [k, n], 0 where there are no more."""
        users = self.numbers(users)
        lengths = self.lengths[users].unsqueeze(1)
        ages = torch.arange(int(lengths.max()))
        rows = self.rows[users].gather(1, (lengths - 1 - ages).clamp(min=0))
        return torch.where(ages < lengths, rows, 0).to(self._states.device)

    def routes(
        self, users: Sequence[int] | torch.Tensor | None = None
    ) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
        """(routes, keep probabilities) of the windows of some users (None: all): the pathway, to be shown.

        Each a tuple over blocks, float32 [k, n], n the longest of these windows, padding 0; empty without a router. The
        last behaviour stands in column ``lengths - 1``.
        """
        users = self.numbers(users)
        count, device = self.lengths[users].unsqueeze(1), self._states.device
        valid = (torch.arange(int(count.max())) < count).to(device).float()
        users, n = users.to(device), valid.shape[1]
        shown = [[part[users, :n] * valid for part in block.shown] for block in self._blocks if block.shown]
        return tuple(zip(*shown, strict=True)) if shown else ((), ())

    @torch.no_grad()
    def start(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        users: Sequence[int] | torch.Tensor | None = None,
    ) -> None:
        """Gives users a history in place of what they had, at the cost of a full pass.

        Args:
            input_ids: [k, n] rows of the item table, padded on the right, n at most the window.
            attention_mask: [k, n], 1 for real items; a row of zeros is an empty history.
            users: [k] numbers of different users; None means all of them, in order.

        Raises:
            ValueError: other shapes, padding on the left, rows that are not in the table, training mode.
        """
        users, window = self.numbers(users, change=True), self.rows.shape[1]
        shape = tuple(input_ids.shape)
        if shape != tuple(attention_mask.shape) or shape != (len(users), shape[-1]) or shape[-1] > window:
            raise ValueError(
                f"input_ids {list(shape)}, attention_mask {list(attention_mask.shape)}: expected [{len(users)}, n] "
                f"both, n at most {window}, the window"
            )
        rows, valid = input_ids.cpu(), attention_mask.cpu().bool()
        if (valid[:, 1:] > valid[:, :-1]).any():
            raise ValueError("an item stands behind padding: the cache wants histories padded on the right")
        self._check_rows(rows[valid])
        self.rows[users] = nn.functional.pad(rows * valid, (0, window - shape[1]))
        self.lengths[users] = valid.sum(1)
        for part in (self._states, *(part for block in self._blocks for part in block.sums)):
            part[users.to(part.device)] = 0
        self._encode(users[self.lengths[users] > 0])

    @torch.no_grad()
    def append(
        self, input_ids: Sequence[int] | torch.Tensor, users: Sequence[int] | torch.Tensor | None = None
    ) -> None:
        """Adds one item to each of some users; the oldest item of a full window leaves.

        Args:
            input_ids: [k] rows of the item table.
            users: [k] numbers of different users; None means all of them, in order.

        Raises:
            ValueError: other shapes, rows that are not in the table, training mode.
        """
        users, rows = self.numbers(users, change=True), torch.as_tensor(input_ids, dtype=torch.long).cpu()
        if rows.shape != users.shape:
            raise ValueError(f"input_ids {list(rows.shape)}: expected one item for each of {len(users)} users")
        self._check_rows(rows)
        users, order = users.sort()
        rows, full = rows[order], self.lengths[users] == self.rows.shape[1]
        if full.any():
            shifted = users[full]
            self.rows[shifted] = torch.cat([self.rows[shifted, 1:], rows[full, None]], dim=1)
            self._encode(shifted)
        if not full.all():
            self._step(users[~full], rows[~full])

    def _encode(self, users: torch.Tensor) -> None:
        """Runs the body over the windows of users, none of them empty; in the last block only the last items ask."""
        users = users[self.lengths[users].argsort()]  # like lengths together: less padding
        for some in users.split(WINDOWS_AT_ONCE) if len(users) else ():
            count, device = self.lengths[some], self._states.device
            steps = torch.arange(int(count.max()))
            remember = int(count.min()) < self.rows.shape[1]  # a full window is next read anew: nobody asks its keys
            hidden_states, route = self._tokens(self.rows[some, : len(steps)], steps), None
            some, valid, ends = some.to(device), (steps < count[:, None]).to(device), (count - 1).to(device)
            for block in self._blocks:
                asking = ends if block is self._blocks[-1] else None
                hidden_states, route = block.encode(hidden_states, route, some, valid, asking, remember)
            self._states[some] = hidden_states.squeeze(1)

    def _step(self, users: torch.Tensor, rows: torch.Tensor) -> None:
        """Runs the body over one new token of each of some users, in ascending order, none of them full."""
        at, device = self.lengths[users], self._states.device
        self.rows[users, at] = rows
        self.lengths[users] = at + 1
        around = slice(int(users[0]), int(users[-1]) + 1)
        neighbours = around if around.stop - around.start == len(users) else None
        visible = (torch.arange(int(at.max()) + 1) <= at[:, None]).to(device)
        hidden_states, route = self._tokens(rows, at).unsqueeze(1), None
        users, at = users.to(device), at.to(device)
        for block in self._blocks:
            hidden_states, route = block.step(hidden_states, route, users, at, visible, neighbours)
        self._states[users] = hidden_states.squeeze(1)

    def _tokens(self, rows: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        device = self.item_embeddings.device
        return self.body.tokens(self.body.look_up(rows.to(device), self.item_embeddings), positions.to(device))

    def numbers(self, users, change: bool = False) -> torch.Tensor:
        """User numbers int64 [k] on the CPU; for a ``change`` each once, and a body in evaluation mode."""
        if change and self.body.training:
            raise ValueError("the body is in training mode: call model.eval(), and start anew if it has learned")
        if users is None:
            return torch.arange(len(self.lengths))
        # torch would cut 1.5 to 1 and takes True for 1; numpy knows both by their type.
        given = list(users) if isinstance(users, Iterable) and not hasattr(users, "ndim") else users
        found = np.asarray(given.cpu() if isinstance(given, torch.Tensor) else given)
        whole = found.ndim == 1 and found.size and found.dtype.kind in "iu"
        if not whole or found.min() < 0 or found.max() >= len(self.lengths):
            raise ValueError(f"users {given!r}: expected a list of numbers from 0 to {len(self.lengths) - 1}")
        users = torch.from_numpy(found.astype(np.int64))
        if change and len(users.unique()) != len(users):
            raise ValueError(f"users {users.tolist()}: expected each one once; call again for their next items")
        return users

    def _check_rows(self, rows: torch.Tensor) -> None:
        if len(rows) and (rows.min() < 1 or rows.max() >= len(self.item_embeddings)):
            raise ValueError(
                f"input_ids from {int(rows.min())} to {int(rows.max())}: expected rows of the item table, 1 to "
                f"{len(self.item_embeddings) - 1}"
            )


def _require_fixed_past(body: RetrModel) -> None:
    """Raises ValueError unless a body's tokens stay what they are when items follow."""
    if not isinstance(body, RetrModel):
        raise ValueError(
            f"{body.config.model_type}: only RETR's own body is served item by item; call the model itself"
        )
    config, problems = body.config, []
    if config.direction == "bidirectional":
        problems.append('direction="bidirectional" changes every past state with each item')
    if config.positions_from == "last":
        problems.append('positions_from="last" moves every past item with each new one; "first" does not')
    if body.training:
        problems.append("it is in training mode: call model.eval()")
    if config.router == "pathway" and config.router_context == "global":
        problems.append('router_context="global" changes every past route with each item; "causal" does not')
    if config.router != "none" and config.router_sampling:
        problems.append("router_sampling=True draws every route anew; set it to False")
    if config._attn_implementation not in ("sdpa", "eager"):
        problems.append(f"attention kernel {config._attn_implementation!r} takes no mask; use sdpa or eager")
    if reads := {name for layer in body.layers for name in layer.self_attn.reads}:
        problems.append(f"attention={config.attention!r} reads {' and '.join(sorted(reads))}, which are not kept")
    if problems:
        raise ValueError("this body cannot be served item by item: " + "; ".join(problems))
