"""The cache against full passes: after every single item, for users of every length, across the window's border."""

import numpy as np
import pytest
import torch

from retr_hf.model.behavior_cache import BehaviorCache
from retr_hf.model.configuration_retr import LOCAL_TYPES, RetrConfig
from retr_hf.model.modeling_retr import RetrForSequentialRecommendation

ITEMS, TEXT, WINDOW = 30, 12, 7


def build(router="pathway", items="text", **changes):
    torch.manual_seed(0)
    config = RetrConfig(
        router=router, item_features=items, hidden_size=16, num_attention_heads=2, intermediate_size=24,
        max_position_embeddings=WINDOW, vocab_size=ITEMS + 1, text_size=TEXT, num_experts=3,
        initializer_range=0.3, router_init_keep=0.5 if router == "pathway" else 0.6, **changes,
    )  # fmt: skip
    return RetrForSequentialRecommendation(config).eval()


def catalog(model):
    table = torch.randn(ITEMS + 1, TEXT, generator=torch.Generator().manual_seed(1))
    table[0] = 0
    return model.encode_catalog(table.to(model.dtype) if model.config.uses_text else None)


def padded(histories, window=WINDOW):
    rows = torch.zeros(len(histories), window, dtype=torch.long)
    for row, history in zip(rows, histories, strict=True):
        row[: len(history[-window:])] = torch.tensor(history[-window:], dtype=torch.long)
    return {"input_ids": rows, "attention_mask": (rows > 0).long()}


def assert_equals_full_passes(cache, model, histories, atol=2e-5):
    """States and routes; says how many of the shown behaviours are kept, by block."""
    users = [user for user, history in enumerate(histories) if history]
    batch = padded([histories[user] for user in users], cache.rows.shape[1])
    want = model.encode_users(**batch, item_embeddings=cache.item_embeddings)
    torch.testing.assert_close(model.query_vectors(cache.states(users)), want, atol=atol, rtol=atol)
    whole = model.model(**batch, item_embeddings=cache.item_embeddings, output_routes=True)
    routes, keep_probabilities = cache.routes(users)
    assert len(routes) == len(keep_probabilities) == len(whole.routes or ())
    real = batch["attention_mask"].bool()[:, : max(len(history[-WINDOW:]) for history in histories)]
    shown = (*(whole.routes or ()), *(whole.keep_probabilities or ()))
    for got, full in zip((*routes, *keep_probabilities), shown, strict=True):
        torch.testing.assert_close(got[real], full[:, : real.shape[1]][real], atol=atol, rtol=atol)
        assert got[~real].eq(0).all()
    return [route[real].mean().item() for route in routes]


def grow(cache, model, histories, items, rng, atol=2e-5):
    """One item for some of the users, here and there."""
    users = rng.permutation(len(histories))[: rng.integers(1, len(histories) + 1)].tolist()
    items = rng.integers(1, items + 1, len(users)).tolist()
    cache.append(items, users)
    for user, item in zip(users, items, strict=True):
        histories[user].append(item)
    return assert_equals_full_passes(cache, model, histories, atol)


CASES = [
    {"router": "pathway"},
    {"router": "pathway", "items": "id"},
    {"router": "random"},
    {"router": "random", "items": "id"},
    {"router": "none"},
    {"router": "none", "items": "id"},
    {"router": "pathway", "hierarchical_route": False, "gumbel": "fixed", "attn_implementation": "eager"},
    {"router": "random", "hierarchical_route": False, "num_hidden_layers": 3, "score": "dot"},
    {"router": "pathway", "num_hidden_layers": 1, "input_norm": False},
    {"router": "pathway", "router_context": "causal", "every_step": False, "items": "text+id"},
    {"attention": "low_rank"},
    *({"attention": "local_global", "local_type": local_type} for local_type in LOCAL_TYPES),
    {"attention": "log_sparse"},
    {"attention": "strided", "sparse_pattern": "fixed"},
    {"attention": "denoising"},
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case.values())))
def test_equal_to_full_passes_after_every_item(case):
    model, rng = build(**case), np.random.default_rng(0)
    histories = [rng.integers(1, ITEMS + 1, length).tolist() for length in (0, 1, 3, WINDOW - 1, WINDOW, 2)]
    cache, kept = BehaviorCache(model.model, catalog(model), len(histories)), []
    cache.start(**padded(histories))
    assert_equals_full_passes(cache, model, histories)
    for _ in range(WINDOW + 5):
        kept.append(grow(cache, model, histories, ITEMS, rng))
    assert cache.lengths.eq(WINDOW).sum() >= 4
    assert all(0.02 < np.mean(shares) < 0.98 for shares in zip(*kept, strict=True)), "routes that differ between tokens"
    assert not cache.states().requires_grad


def test_everyone_begins_empty_and_may_all_be_asked_at_once():
    model = build()
    cache, histories = BehaviorCache(model.model, catalog(model), 3), [[], [], []]
    assert cache.states().eq(0).all() and cache.states().shape == (3, 16)
    assert [route.shape for route in cache.routes()[0]] == [(3, 0), (3, 0)]
    for step in range(WINDOW + 2):
        items = [step + 1, step + 2, step + 3]
        cache.append(torch.tensor(items))
        histories = [[*history, item] for history, item in zip(histories, items, strict=True)]
        assert_equals_full_passes(cache, model, histories)


def test_windows_with_room_for_one_more():
    model, rng = build(), np.random.default_rng(6)
    cache, histories = (
        BehaviorCache(model.model, catalog(model), 3),
        rng.integers(1, ITEMS + 1, (3, WINDOW - 1)).tolist(),
    )
    cache.start(**padded(histories))
    for _ in range(3):
        grow(cache, model, histories, ITEMS, rng)


def test_more_windows_than_one_pass_takes():
    model, rng = build(), np.random.default_rng(1)
    histories = [rng.integers(1, ITEMS + 1, length).tolist() for length in rng.integers(0, WINDOW + 1, 80)]
    cache = BehaviorCache(model.model, catalog(model), len(histories))
    cache.start(**padded(histories))
    assert_equals_full_passes(cache, model, histories)
    for _ in range(2):
        grow(cache, model, histories, ITEMS, rng)


def test_start_replaces_some_users_and_leaves_the_others():
    model, rng = build(), np.random.default_rng(2)
    histories = [rng.integers(1, ITEMS + 1, 5).tolist() for _ in range(4)]
    cache = BehaviorCache(model.model, catalog(model), 4)
    cache.start(**padded(histories))
    histories[2], histories[0] = [9, 8], []
    cache.start(**padded([histories[2], histories[0]], 2), users=[2, 0])
    assert cache.states([0]).eq(0).all() and cache.lengths.tolist() == [0, 5, 2, 5]
    assert_equals_full_passes(cache, model, histories)
    for _ in range(WINDOW):
        grow(cache, model, histories, ITEMS, rng)


def test_a_window_shorter_than_the_models():
    model, rng = build(), np.random.default_rng(3)
    cache, histories = BehaviorCache(model.model, catalog(model), 2, window=3), [[], [4]]
    cache.start(**padded(histories, 1))
    for _ in range(6):
        grow(cache, model, histories, ITEMS, rng)
    assert cache.rows.shape == (2, 3)


def test_rows_may_be_added_to_the_table():
    model, rng = build(), np.random.default_rng(4)
    cache, histories = BehaviorCache(model.model, catalog(model), 2), [[], []]
    grow(cache, model, histories, ITEMS, rng)
    cache.item_embeddings = torch.cat([cache.item_embeddings, torch.randn(50, 16)])
    for _ in range(WINDOW + 2):
        grow(cache, model, histories, ITEMS + 50, rng)
    assert max(map(max, filter(None, histories))) > ITEMS


@pytest.mark.parametrize("router", ["pathway", "random", "none"])
@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-6), (torch.bfloat16, 0.5)], ids=str)
def test_other_precisions(dtype, atol, router):
    """Float64 leaves no room for a wrong term (α is float32); in bfloat16 queries of length 14 are told to 0.06."""
    model, rng = build(router), np.random.default_rng(5)
    if router == "pathway" and dtype == torch.bfloat16:
        for layer in model.model.layers:  # decisions far from the border, so that rounding turns none over
            layer.router.keep_mlp[-1].weight.data *= 100
    model = model.to(dtype)
    cache, histories = BehaviorCache(model.model, catalog(model), 3), [[], [3], [1, 2]]
    cache.start(**padded(histories))
    assert cache.states().dtype == dtype
    for _ in range(WINDOW):
        grow(cache, model, histories, ITEMS, rng, atol)


def test_sums_do_not_stop_growing_in_half_precision():
    """In bfloat16 256 + 1 is 256: a random route would repeat itself from there."""
    torch.manual_seed(0)
    config = RetrConfig(
        router="random", item_features="id", vocab_size=9, hidden_size=4, num_attention_heads=1, intermediate_size=4,
        max_position_embeddings=300, router_init_keep=0.5,
    )  # fmt: skip
    model = RetrForSequentialRecommendation(config).eval().bfloat16()
    cache, ids = BehaviorCache(model.model, model.encode_catalog(), 1), torch.randint(1, 9, (1, 300))
    cache.start(ids[:, :250], torch.ones(1, 250))
    for column in range(250, 300):
        cache.append(ids[:, column])
    whole = model.model(ids, item_embeddings=cache.item_embeddings, output_routes=True).routes
    assert all(torch.equal(got, want) for got, want in zip(cache.routes()[0], whole, strict=True))


def test_one_item_costs_one_token_a_user():
    model, asked = build(), []
    for block in model.model.layers:
        for part in (block.self_attn.q_proj, block.self_attn.k_proj, block.up_proj):
            part.register_forward_hook(lambda module, inputs, output: asked.append(output.shape[:-1].numel()))
    cache = BehaviorCache(model.model, catalog(model), 4)
    asked.clear()
    cache.start(**padded([[1, 2, 3]] * 4, 3))
    assert asked == [12, 12, 12, 4, 12, 4]  # the last block asks for the last states alone
    asked.clear()
    cache.append([1, 2, 3], [3, 0, 1])
    assert asked == [3, 3, 3, 3, 3, 3]


def test_what_is_handed_out_is_a_copy():
    model = build()
    cache = BehaviorCache(model.model, catalog(model), 2)
    cache.start(**padded([[1, 2], [3]]))
    state, (routes, _) = cache.states(), cache.routes()
    kept = state.clone(), routes[0].clone()
    cache.append([5, 6])
    assert torch.equal(state, kept[0]) and torch.equal(routes[0], kept[1])
    cache.states().zero_()
    assert cache.states().ne(0).any()


def test_memory_by_hand():
    """Keys and values 2 d, a route 1 byte, α 4; sums 2 d + 2; the state d; a row number 8, a length 8."""
    for router, routed in (("pathway", 1), ("none", 0)):
        model = build(router)
        cache = BehaviorCache(model.model, catalog(model), 5)
        block = WINDOW * (2 * 16 * 4 + routed * 5) + routed * (2 * 16 + 2) * 4
        assert cache.bytes_per_user == 2 * block + 16 * 4 + WINDOW * 8 + 8


def test_bodies_that_cannot_be_served_item_by_item():
    def refused(model, told):
        with pytest.raises(ValueError, match=f"cannot be served item by item: .*{told}"):
            BehaviorCache(model.model, torch.zeros(ITEMS + 1, 16), 2)

    refused(build().train(), "training mode")
    refused(build(router_context="global", every_step=False), 'router_context="global" changes every past route')
    refused(build(router_sampling=True), "router_sampling=True")
    refused(build(positions_from="last"), 'positions_from="last" moves every past item')
    flash, timed = build(), build()
    flash.config._attn_implementation_internal = "flash_attention_2"
    refused(flash, "'flash_attention_2' takes no mask")
    timed.model.layers[1].self_attn.reads = ("times", "marks")
    refused(timed, "reads marks and times, which are not kept")
    BehaviorCache(build("none", router_sampling=True, router_context="global").model, torch.zeros(3, 16), 2)


def test_wrong_calls_are_told_and_change_nothing():
    model = build()
    cache = BehaviorCache(model.model, catalog(model), 3)
    cache.start(**padded([[1, 2], [3], []]))
    before = cache.states(), cache.lengths.clone(), cache.rows.clone()
    one, real = torch.ones(1, 2, dtype=torch.long), torch.ones(1, 2)
    for call, told in (
        (lambda: cache.append([4, 5], [1, 1]), "expected each one once"),
        (lambda: cache.append([4], [3]), "numbers from 0 to 2"),
        (lambda: cache.append([4], [-1]), "numbers from 0 to 2"),
        (lambda: cache.append([4, 5]), "one item for each of 3 users"),
        (lambda: cache.append([ITEMS + 1], [0]), "expected rows of the item table, 1 to 30"),
        (lambda: cache.append([0], [0]), "expected rows of the item table"),
        (lambda: cache.start(one, real), r"expected \[3, n\] both"),
        (lambda: cache.start(one, torch.ones(1, 3), [0]), r"expected \[1, n\] both"),
        (lambda: cache.start(one.repeat(1, 4), real.repeat(1, 4), [0]), "n at most 7, the window"),
        (lambda: cache.start(one, torch.tensor([[0, 1]]), [0]), "padded on the right"),
        (lambda: cache.start(one + ITEMS, real, [0]), "expected rows of the item table"),
        (lambda: BehaviorCache(model.model, cache.item_embeddings, 0), "users=0"),
        (lambda: BehaviorCache(model.model, cache.item_embeddings, 1, 8), "a window of at most 7"),
    ):
        with pytest.raises(ValueError, match=told):
            call()
    model.train()
    with pytest.raises(ValueError, match="training mode"):
        cache.append([1], [0])
    after = cache.states(), cache.lengths, cache.rows
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
