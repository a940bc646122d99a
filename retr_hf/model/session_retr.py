"""RecommenderSession: users whose histories grow while they are served."""

import reprlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from .behavior_cache import BehaviorCache
from .history_lists import require_list
from .recommendation import Recommendation, recommendations

if TYPE_CHECKING:
    from .recommender import Recommender


class RecommenderSession:
    """Answers as ``Recommender.recommend`` does on the whole histories, but an item more costs O(N d) (see
    ``BehaviorCache``): the session keeps what the model has computed of each user, ``cache.bytes_per_user`` of memory.

    Unknown item ids follow the processor's policy: left out, or an error before anything is changed. A user may have
    no item yet; recommendations start with the first. Items that ``Recommender.add_items`` brings are recommended and
    read as the others; the next call after it costs a pass over all histories. One thread at a time.

    Args:
        recommender: model and catalogue; made by ``Recommender.session``.
        histories: raw item ids of each user, oldest first. Users are numbered in this order, from 0.

    Attributes:
        histories: catalogue indices of each user's whole history, unknown items left out.
        cache: the ``BehaviorCache``.

    Raises:
        ValueError: no users, a history that is no list of ids, ids that are not strings, unknown ids under
            ``"error"``, a processor with the policy ``"text"``, or a model ``BehaviorCache`` refuses.
    """

    def __init__(self, recommender: "Recommender", histories: Sequence[Sequence[str]]):
        self.recommender = recommender
        self.model, self.processor = recommender.model, recommender.processor
        if self.processor.unknown_items == "text":
            raise ValueError(
                'unknown_items="text": a session reads items of the catalogue alone; add new ones with '
                'Recommender.add_items, or use "skip" or "error"'
            )
        require_list(histories, "histories", "the histories of users, a list of item ids each")
        histories = list(histories)
        if not histories:
            raise ValueError("histories: expected those of at least one user, got none; an empty one will do")
        for history in histories:
            require_list(history, "histories", "item ids for each user")
        found = self.processor.lookup([item for history in histories for item in history])
        ends = np.cumsum([len(history) for history in histories])
        self.histories = [each[each > 0].tolist() for each in np.split(found, ends)[:-1]]
        self._read_histories()

    def _read_histories(self) -> None:
        """Gives every user what the model makes of the whole history, by the items as they are now."""
        self._items = self.recommender.item_embeddings
        self.cache = BehaviorCache(self.model.model, self._items, len(self.histories), self.processor.max_length)
        self.cache.start(**self.processor.pad(self.histories))
        self.candidates = self.model.candidate_vectors(self._items)  # [num_items + 1, d]

    def _follow_catalog(self) -> None:
        # Old items may have other vectors too, where texts are whitened by the catalogue's own statistics.
        if self._items is not self.recommender.item_embeddings:
            self._read_histories()

    def append(self, items: Mapping[int, str]) -> None:
        """What some users have just done: user number -> raw item id, one each; call again for more.

        Raises:
            ValueError: no such mapping, a user the session does not have, an id that is no string, an unknown id under
                ``"error"``.
        """
        if not isinstance(items, Mapping):
            raise ValueError(
                f"append: expected {{user number: item id}}, got {type(items).__name__} {reprlib.repr(items)}"
            )
        found = self.processor.lookup(list(items.values())).tolist()
        self._follow_catalog()
        known = {user: row for user, row in zip(items, found, strict=True) if row}
        if known:
            self.cache.append(list(known.values()), list(known))
        for user, row in known.items():
            self.histories[user].append(row)

    @torch.no_grad()
    def recommend(
        self, k: int = 10, exclude_seen: bool = True, users: Sequence[int] | None = None, pathway: bool = True
    ) -> list[Recommendation]:
        """The k best next items of some users.

        Args:
            k: how many items, at most those that remain.
            exclude_seen: leave the items of the whole history out.
            users: their numbers; None means all, in order.
            pathway: tell it too; of many long histories that takes longer than all the rest.

        Raises:
            ValueError: k is no whole number of at least 1, a user the session does not have, or one who has no item of
                the catalogue yet.
        """
        self._follow_catalog()
        users = None if users is None else self.cache.numbers(users).tolist()
        states = self.cache.states(users)
        histories = self.histories if users is None else [self.histories[user] for user in users]
        if not all(histories):
            nobody = histories.index([]) if users is None else users[histories.index([])]
            raise ValueError(f"user {nobody} has no item of the catalogue yet: append one, or name the users to answer")
        scores = self.model.scores(states, self.cache.recent(users), self.cache.item_embeddings, self.candidates)
        windows = [self.processor.window(history) for history in histories]
        seen = histories if exclude_seen else None
        shown = self.cache.routes(users) if pathway else (None, None)
        return recommendations(self.processor, scores, k, windows, seen, *shown)
