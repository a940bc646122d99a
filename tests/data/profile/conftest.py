"""A domain without fault, which the tests give one fault each."""

from dataclasses import dataclass, field

import polars as pl
import pytest

from retr_hf.data.domain import PreparedDomain, load_domain
from retr_hf.data.prepare import write_domain
from retr_hf.data.readers.raw import RawDomain

ITEMS, STRIDES, LENGTH = 241, 5, 6  # a prime, so that every item stands at every place equally often
DAY = 86_400
START = 1_500_000_000  # July 2017


@dataclass
class Clean:
    """1,205 users with six interactions each, no two alike; 241 items, touched 30 times each, with unlike texts.

    User s + 241 * (d - 1) takes the items s, s + d, s + 2d ... modulo 241, one a day.
    """

    items: dict[str, list[str]] = field(default_factory=dict)
    times: dict[str, list[int]] | None = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)

    def __post_init__(self):
        for user in range(ITEMS * STRIDES):
            start, stride = user % ITEMS, user // ITEMS + 1
            self.items[f"u{user}"] = [f"i{(start + place * stride) % ITEMS}" for place in range(LENGTH)]
            self.times[f"u{user}"] = [START + DAY * (user + place) for place in range(LENGTH)]
        self.texts = {f"i{item}": f"alpha{item} beta{item} gamma{item}" for item in range(ITEMS)}

    def write(self, folder, reader_options: dict | None = None, **options) -> PreparedDomain:
        columns = {"user_id": list(self.items), "item_ids": list(self.items.values())}
        if self.times is not None:
            columns["timestamps"] = [self.times[user] for user in self.items]
        table = pl.DataFrame({"item_id": list(self.texts), "text": list(self.texts.values())})
        raw = RawDomain(pl.DataFrame(columns), table, reader="tables", options=reader_options or {})
        write_domain(raw, folder, k_core=0, num_negatives=2, **options)
        return load_domain(folder)


@pytest.fixture
def clean() -> Clean:
    return Clean()
