"""BlockCache: what one block of the body keeps of each user between two behaviours. Torch only.

Letters: U users, N items in the window, d width; k users of a call, n columns.
"""

from collections.abc import Iterable

import torch

from .attention import SequenceContext
from .block_retr import RetrLayer
from .pathway import PathwaySums
from .sequence_layout import SequenceLayout


class BlockCache:
    """A block, and what it remembers: its keys, the router's running sums, and the routes to be shown.

    Args:
        layer: the block.
        shape: (U, N).
        token: [1, 1, d], any token: its dtype and device are those of the cache.

    Attributes:
        keys: [U, N, ·] each, what the attention projects beside the query.
        sums: ``PathwaySums`` of each user, at least float32; empty without a router.
        shown: hard route, bool [U, N], and keep probability, float32 [U, N]; empty without a router.
    """

    def __init__(self, layer: RetrLayer, shape: tuple[int, int], token: torch.Tensor):
        self.layer, self.sums, self.shown = layer, (), ()
        _, *keys = layer.self_attn.project(token, token)
        self.keys = [key.new_zeros(*shape, key.shape[-1]) for key in keys]
        if layer.router is not None:
            nothing = _sums(token, token[..., 0], torch.zeros_like(token[..., 0]))
            self.sums = PathwaySums(*(part.new_zeros(shape[0], *part.shape[1:]) for part in nothing))
            route = torch.zeros(shape, dtype=torch.bool, device=token.device)
            self.shown = (route, route.float())

    def encode(
        self,
        hidden_states: torch.Tensor,
        route: torch.Tensor | None,
        users: torch.Tensor,
        valid: torch.Tensor,
        ends: torch.Tensor | None = None,
        remember: bool = True,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Runs the block over windows, padded on the right.

        Args:
            hidden_states: [k, n, d].
            route: [k, n] of the block before, or None.
            users: [k] whose windows they are.
            valid: bool [k, n], False for padding.
            ends: [k] column of the one token of each window that asks; None means all ask.
            remember: keep keys and sums.

        Returns:
            (tokens [k, n, d] or with ``ends`` [k, 1, d], route [k, n] or None).
        """
        layer, columns, layout = self.layer, slice(valid.shape[1]), SequenceLayout(valid)
        if layer.router is not None:
            routing = layer.router(hidden_states, route, layout)
            if remember:
                _put(self.sums, users, _sums(hidden_states, valid if route is None else route, valid))
            _put(self.shown, (users, columns), (routing.route.bool(), routing.keep_probability))
            route = routing.route
        asking, asking_route, mask = hidden_states, route, None  # padding on the right needs the diagonal alone
        if ends is not None:
            places = torch.arange(len(users), device=users.device), ends
            asking, mask = hidden_states[places].unsqueeze(1), valid[:, None, None]
            asking_route = None if route is None else route[places].unsqueeze(1)
        query, *keys = layer.self_attn.project(asking, hidden_states, asking_route)
        if remember:
            _put(self.keys, (users, columns), keys)
        mixed, _, _ = layer.self_attn.mix(query, *keys, context=SequenceContext(layout, mask))
        return layer.finish(asking, layer.self_attn.o_proj(mixed)), route

    def step(
        self,
        hidden_states: torch.Tensor,
        route: torch.Tensor | None,
        users: torch.Tensor,
        at: torch.Tensor,
        visible: torch.Tensor,
        neighbours: slice | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Runs the block over one new token of each user.

        Args:
            hidden_states: [k, 1, d].
            route: [k, 1] of the block before, or None.
            users, at: [k] whose tokens they are, and their columns in the windows.
            visible: bool [k, n], the columns up to ``at``.
            neighbours: the users as a slice where they stand side by side: their keys are then read in place.

        Returns:
            (tokens [k, 1, d], route [k, 1] or None).
        """
        layer, n = self.layer, visible.shape[1]
        if layer.router is not None:
            real = torch.ones_like(visible[:, :1])
            before = real if route is None else route
            sums = PathwaySums(*(part[users] for part in self.sums)).plus(_sums(hidden_states, before, real))
            routing = layer.router.next(hidden_states.squeeze(1), before.squeeze(1), sums)
            _put(self.sums, users, sums)
            _put(self.shown, (users, at), (routing.route.bool(), routing.keep_probability))
            route = routing.route.unsqueeze(1)
        query, *keys = layer.self_attn.project(hidden_states, hidden_states, route)
        _put(self.keys, (users, at), [key.squeeze(1) for key in keys])
        if neighbours is None:
            keys = [kept[:, :n].index_select(0, users) for kept in self.keys]
        else:
            keys = [kept[neighbours, :n] for kept in self.keys]
        context = SequenceContext(SequenceLayout(visible), visible[:, None, None])
        mixed, _, _ = layer.self_attn.mix(query, *keys, context=context)
        return layer.finish(hidden_states, layer.self_attn.o_proj(mixed)), route


def _sums(hidden_states: torch.Tensor, route: torch.Tensor, valid: torch.Tensor) -> PathwaySums:
    """Sums over rows in at least float32: a running sum in half precision would soon stop growing."""
    precise = torch.promote_types(hidden_states.dtype, torch.float32)
    return PathwaySums.over(hidden_states.to(precise), route, valid)


def _put(kept: Iterable[torch.Tensor], where, values: Iterable[torch.Tensor]) -> None:
    for part, value in zip(kept, values, strict=True):
        part[where] = value
