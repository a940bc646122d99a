"""Where sequences lie in a batch of rows. Torch only.

Letters: B rows, N columns, S sequences, M the tokens of a sequence that ask (all N, or one).
"""

from typing import NamedTuple

import torch


class SequenceLayout(NamedTuple):
    """Where sequences lie in rows [B, N], in one of three ways.

    - one sequence a row, padding on either side: ``valid`` alone;
    - several sequences packed into a row one after the other: ``start`` and ``end``;
    - one long row [1, T] of groups of sequences of like length: ``groups``. Each group is a rectangle, S sequences of n
      tokens, padded on the right, so that nothing but the diagonal needs a mask.

    valid: bool [B, N], False for padding.
    start, end: int64 [B, N], index within the row of the first and the last token of the token's own sequence, or None.
    groups: (S, n) of each group, in their order along the row, or None.
    """

    valid: torch.Tensor
    start: torch.Tensor | None = None
    end: torch.Tensor | None = None
    groups: tuple[tuple[int, int], ...] | None = None

    @classmethod
    def whole(cls, hidden_states: torch.Tensor) -> "SequenceLayout":
        """Layout of rows [B, N, d] without padding, one sequence each."""
        return cls(torch.ones(hidden_states.shape[:2], dtype=torch.bool, device=hidden_states.device))

    @classmethod
    def from_positions(cls, position_ids: torch.Tensor, valid: torch.Tensor) -> "SequenceLayout":
        """Layout of packed rows: a sequence starts wherever ``position_ids`` [B, N] is 0."""
        steps = torch.arange(position_ids.shape[1], device=position_ids.device).expand_as(position_ids)
        first = position_ids == 0
        start = torch.where(first, steps, 0).cummax(dim=1).values
        last = torch.cat([first[:, 1:], torch.ones_like(first[:, :1])], dim=1)
        end = torch.where(last, steps, steps.shape[1]).flip(1).cummin(dim=1).values.flip(1)
        return cls(valid, start, end)

    def ages(self, position_ids: torch.Tensor) -> torch.Tensor:
        """How many items of its own sequence follow each token: [B, N], from its place ``position_ids`` [B, N].

        Padding has some place of its row, which nobody reads.
        """
        if self.packed:
            return self.end - torch.arange(position_ids.shape[1], device=position_ids.device)
        lengths = [part.sum(1, keepdim=True).repeat(1, part.shape[1]) for part in self.rectangles(self.valid)]
        return (self.join(lengths, position_ids.shape) - 1 - position_ids).clamp(min=0)

    @property
    def packed(self) -> bool:
        """Whether a row holds several sequences that are no rectangles."""
        return self.start is not None

    def rectangles(self, values: torch.Tensor) -> list[torch.Tensor]:
        """[B, N, ...] as views [S, n, ...] of the groups, or itself where there are none."""
        if self.groups is None:
            return [values]
        parts = values[0].split([count * length for count, length in self.groups])
        return [part.unflatten(0, group) for part, group in zip(parts, self.groups, strict=True)]

    def askers(self, values: torch.Tensor) -> list[torch.Tensor]:
        """[1, S, ...], one token a sequence, as views [S, 1, ...] of the groups."""
        counts = [values.shape[1]] if self.groups is None else [count for count, _ in self.groups]
        return [part.unsqueeze(1) for part in values[0].split(counts)]

    @staticmethod
    def join(parts: list[torch.Tensor], shape: tuple[int, ...]) -> torch.Tensor:
        """Undoes ``rectangles`` or ``askers``: parts of [S, n, ...] -> ``shape``, [B, N, ...] or [1, S, ...]."""
        return (parts[0] if len(parts) == 1 else torch.cat([part.flatten(0, 1) for part in parts])).view(shape)

    def columns(self, ends: torch.Tensor) -> list[torch.Tensor]:
        """Column [S] within its sequence's own rectangle of each flat place ``ends`` [S], by group."""
        groups = self.groups or [tuple(self.valid.shape)]
        found, begin = [], 0
        for part, (count, length) in zip(ends.split([count for count, _ in groups]), groups, strict=True):
            found.append(part - begin - length * torch.arange(count, device=ends.device))
            begin += count * length
        return found

    def visible(self, context: str = "causal", ends: torch.Tensor | None = None) -> list[torch.Tensor]:
        """What each token sees of its own sequence: bool [S or 1, M, n] of each rectangle.

        context: "causal" (itself and what came before) or "global" (all of it).
        ends: ascending flat place (row * N + column) of the one token a sequence that asks; None means all ask.
        """
        device, rectangles = self.valid.device, self.rectangles(self.valid)
        if self.packed:
            steps = torch.arange(self.valid.shape[1], device=device)
            last = steps[:, None] if context == "causal" else self.end[:, :, None]
            return [(self.start[:, :, None] <= steps) & (steps <= last) & self.valid[:, None]]
        masks = []
        for nth, valid in enumerate(rectangles):
            steps = torch.arange(valid.shape[1], device=device)
            if context == "global":
                masks.append(valid[:, None].expand(-1, valid.shape[1] if ends is None else 1, -1))
                continue
            asking = steps[None, :, None] if ends is None else self.columns(ends)[nth][:, None, None]
            mask = steps <= asking
            masks.append(mask if self.groups is not None else mask & valid[:, None])
        return masks

    def ranks(self) -> torch.Tensor:
        """1, 2, ... for the real tokens of each sequence in their order: int64 [B, N]."""
        if self.packed:
            return torch.arange(self.valid.shape[1], device=self.valid.device) - self.start + 1
        return self.join([valid.long().cumsum(1) for valid in self.rectangles(self.valid)], self.valid.shape)
