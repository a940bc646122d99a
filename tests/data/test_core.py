"""The integer path against a plain one, byte by byte, on any log with any options; order, k-core, drawing."""

import tempfile
from collections import Counter
from pathlib import Path
from unittest import mock

import numpy as np
import polars as pl
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from retr_hf.data import core, user_parts
from retr_hf.data.core import first_rows, k_core_filter
from retr_hf.data.log_options import DUPLICATES, LogOptions, domain_of_log, seconds_of
from retr_hf.data.negatives import sample_negatives, touched_pairs
from retr_hf.data.prepare import write_domain
from retr_hf.data.readers.raw import RawDomain, RawLog
from retr_hf.errors import DataError

COLUMNS = {"user_id": pl.String, "item_id": pl.String, "rating": pl.Float32, "timestamp": pl.Int64}
DAY = 86400
EVENTS = st.lists(
    st.tuples(st.sampled_from("uvwxyz"), st.sampled_from("abcdef"), st.integers(1, 3), st.integers(0, 4)),
    min_size=1, max_size=70,
)  # fmt: skip
OPTIONS = st.builds(
    LogOptions,
    min_rating=st.sampled_from([None, 2]),
    since=st.sampled_from([None, "1970-01-02"]),
    until=st.sampled_from([None, "1970-01-04"]),
    with_metadata=st.booleans(),
    duplicates=st.sampled_from(sorted(DUPLICATES)),
)
ITEMS = st.lists(st.tuples(st.sampled_from("abcdexyz"), st.text("pqr", max_size=3)), max_size=9)


def plain_sequences(events: list[tuple], items: dict, options: LogOptions, k: int) -> dict[str, list[tuple]]:
    """user -> [(item, time), ...], with lists and dictionaries, one rule after the other."""
    events = [(*event, row) for row, event in enumerate(events)]
    events = [e for e in events if options.min_rating is None or e[2] >= options.min_rating]
    events = [e for e in events if options.since is None or e[3] >= seconds_of(options.since)]
    events = [e for e in events if options.until is None or e[3] < seconds_of(options.until)]
    events = [e for e in events if not options.with_metadata or e[1] in items]
    if options.duplicates == "identical":
        events = list({e[:4]: e for e in reversed(events)}.values())
    in_time = sorted(events, key=lambda e: (e[3], e[4]))
    if options.duplicates in ("first", "last"):
        in_time = list({e[:2]: e for e in (in_time if options.duplicates == "last" else in_time[::-1])}.values())
    if options.duplicates == "consecutive":
        touched = {user: [e for e in in_time if e[0] == user] for user in {e[0] for e in in_time}}
        in_time = [
            e
            for mine in touched.values()
            for b, e in zip([None, *mine], mine, strict=False)
            if b is None or b[1] != e[1]
        ]
    events = sorted(in_time, key=lambda e: e[4])
    users = list(dict.fromkeys(e[0] for e in events))
    while True:
        counts = Counter(e[0] for e in events), Counter(e[1] for e in events)
        kept = [e for e in events if counts[0][e[0]] >= k and counts[1][e[1]] >= k]
        if len(kept) == len(events):
            break
        events = kept
    in_time = sorted(events, key=lambda e: (e[3], e[4]))
    made = {user: [(e[1], e[3]) for e in in_time if e[0] == user] for user in users}
    return {user: mine for user, mine in made.items() if mine}


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(EVENTS, ITEMS, OPTIONS, st.integers(0, 3), st.booleans(), st.sampled_from([1, 9, 1000]))
def test_a_log_gives_the_same_files_as_the_plain_path(events, items, options, k, whole_catalogue, part):
    events = [(user, item, float(rating), day * DAY) for user, item, rating, day in events]
    rows = {item: text for item, text in reversed(items)}  # the first row of an item holds
    rows = {item: rows[item] for item, _ in items}
    plain = plain_sequences(events, rows, options, k)
    described = any(item in rows for mine in plain.values() for item, _ in mine)  # else the table is another log's
    table = pl.DataFrame(items, schema={"item_id": pl.String, "text": pl.String}, orient="row")
    log = RawLog(
        pl.DataFrame(events, schema=COLUMNS, orient="row").lazy(), table.lazy(), "test", whole_catalogue=whole_catalogue
    )
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        try:
            with mock.patch.object(user_parts, "_PART", part):
                raw = domain_of_log(log, options, k)
            write_domain(raw, folder / "log" / "d", k_core=k, num_negatives=3)
        except DataError:
            assert not described
            return
        assert described
        sequences = pl.DataFrame(
            {
                "user_id": list(plain),
                "item_ids": [[item for item, _ in mine] for mine in plain.values()],
                "timestamps": [[time for _, time in mine] for mine in plain.values()],
            }
        )
        domain = RawDomain(
            sequences, pl.DataFrame({"item_id": list(rows), "text": list(rows.values())}, table.schema), "test",
            whole_catalogue=whole_catalogue,
        )  # fmt: skip
        write_domain(domain, folder / "plain" / "d", k_core=0, num_negatives=3)
        files = {p.relative_to(folder / "plain") for p in folder.glob("plain/d/**/*.*") if p.is_file()}
        assert len(files) == 9
        for file in files - {Path("d/domain.json"), Path("d/README.md")}:  # which tell dates and options
            assert (folder / "log" / file).read_bytes() == (folder / "plain" / file).read_bytes(), file


def test_counts_and_first_rows_do_not_depend_on_the_block(monkeypatch):
    rng = np.random.default_rng(0)
    frame = pl.DataFrame({"user_id": rng.integers(0, 40, 300), "item_id": rng.integers(0, 30, 300)}).cast(pl.String)
    whole, first = k_core_filter(frame, 5), first_rows(frame["user_id"])
    assert 0 < whole.height < 300
    monkeypatch.setattr(core, "_COUNTED", 7)
    assert k_core_filter(frame, 5).equals(whole)
    assert first_rows(frame["user_id"]).tolist() == first.tolist()
    users = frame["user_id"].to_list()
    assert sorted(first.tolist()) == sorted(users.index(user) for user in set(users))


def test_drawing_is_floyds_algorithm_row_by_row():
    rng = np.random.default_rng(3)
    rows, items, num_items, count = rng.integers(0, 9, 60), rng.integers(1, 13, 60), 12, 6
    pairs = touched_pairs(rows, items, num_items)
    values, offsets = sample_negatives(pairs, np.arange(9), num_items, count, np.random.default_rng(4))
    untouched = [sorted(set(range(1, 13)) - set(items[rows == row])) for row in range(9)]
    rng, chosen = np.random.default_rng(4), [[] for _ in range(9)]
    for step in range(count):
        top = np.array([len(left) - count + step for left in untouched])
        draws = rng.integers(0, np.maximum(top, 0) + 1)
        for row in range(9):
            draw = -1 if top[row] < 0 else int(top[row] if draws[row] in chosen[row] else draws[row])
            chosen[row].append(draw)
    shuffled = rng.permuted(np.array(chosen), axis=1)
    expected = [[left[rank] for rank in ranks if rank >= 0] for left, ranks in zip(untouched, shuffled, strict=True)]
    assert [values[a:b].tolist() for a, b in zip(offsets[:-1], offsets[1:], strict=True)] == expected
