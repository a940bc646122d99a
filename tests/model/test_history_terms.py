"""The text path and the repeat term, against loops over users, ages and items; and the head that uses them."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from retr_hf.baselines.text_similarity import text_similarity
from retr_hf.evaluation.histories import histories_of, rank_histories
from retr_hf.evaluation.ranking import full_ranks
from retr_hf.model import modeling_retr, objectives
from retr_hf.model.configuration_retr import RetrConfig
from retr_hf.model.history_terms import RepeatTerm, TextPath, recent_rows
from retr_hf.model.losses import softmax_loss
from retr_hf.model.modeling_retr import RetrForPreTraining, RetrForSequentialRecommendation

ITEMS, TEXT, LENGTH = 25, 10, 6


def build(cls=RetrForSequentialRecommendation, **changes):
    torch.manual_seed(0)
    settings = dict(item_features="text", text_path=True, repeat_term=True, score_gain=0.4) | changes
    config = RetrConfig(
        hidden_size=16, num_attention_heads=2, intermediate_size=24, max_position_embeddings=LENGTH, text_size=TEXT,
        vocab_size=ITEMS + 1, num_experts=3, initializer_range=0.3, **settings,
    )  # fmt: skip
    model = cls(config).eval()
    with torch.no_grad():
        for term in (model.text_path, model.repeat_term):
            if term is not None:
                term.weights += 0.2 * torch.randn(LENGTH)
    return model


def text_table(items=ITEMS):
    table = torch.randn(items + 1, TEXT, generator=torch.Generator().manual_seed(3))
    table[0] = 0
    return table


def some_histories(count=40, longest=10):
    """Histories with repeats, some longer than the model reads; the last item is the target."""
    rng = np.random.default_rng(0)
    rows = [rng.integers(1, 9 if nth % 2 else ITEMS + 1, rng.integers(2, longest)) for nth in range(count)]
    return SimpleNamespace(
        item_ids=np.concatenate(rows).astype(np.int32), offsets=np.cumsum([0, *map(len, rows)])
    ), rows


def plain_scores(model, history, text):
    """Scores [M] of one history, by the formula, item by item."""
    config, table = model.config, model.encode_items(None, text)
    read = [int(item) for item in history][-LENGTH:]
    ids = torch.tensor([read])
    state = model.model(ids, item_embeddings=table).last_hidden_state[0, -1]
    e, x = table[:, : config.hidden_size], torch.nn.functional.normalize(text, dim=-1)
    gain = 1.0 if model.text_path is None else model.text_path.gain
    scores = gain * torch.cosine_similarity(state[None], e)
    for item in range(1, len(text)):
        for age, past in enumerate(reversed(read)):
            if model.text_path is not None:
                scores[item] += model.text_path.weights[age] * (x[past] @ x[item])
            if model.repeat_term is not None and past == item:
                scores[item] += model.repeat_term.weights[age]
    return scores / config.temperature


def test_recent_rows_are_the_history_from_its_end():
    ids = torch.tensor([[5, 6, 7, 8, 9, 0]])
    positions = torch.tensor([[0, 1, 2, 0, 1, 0]])  # 5 6 7 | 8 9
    got = recent_rows(ids, positions, torch.tensor([2, 4, 3]))
    assert got.tolist() == [[7, 6, 5], [9, 8, 0], [8, 0, 0]]
    assert recent_rows(ids, positions, torch.tensor([], dtype=torch.long)).shape == (0, 0)


def test_text_path_by_hand():
    config = RetrConfig(max_position_embeddings=3, text_path_weight=0.5, text_path_decay=0.5, score_gain=0.1)
    path = TextPath(config)
    assert path.weights.tolist() == [0.5, 0.25, 0.125] and path.gain.item() == pytest.approx(0.1)
    text = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    got = path(torch.tensor([[2, 1, 1], [1, 0, 0]]), text)
    assert got.tolist() == [[0.375, 0.5], [0.5, 0.0]]
    path.cut_positions(2)
    assert path.weights.tolist() == [0.5, 0.25]


def test_repeat_term_by_hand():
    term = RepeatTerm(RetrConfig(max_position_embeddings=3, repeat_term_start=-0.3))
    assert term(torch.tensor([[4, 2, 0]])).tolist()[0] == pytest.approx([-0.3, -0.3, 0.0])


@pytest.mark.parametrize("terms", [{}, {"text_path": False}, {"repeat_term": False}, {"score": "dot"}])
def test_scores_are_the_formula(terms):
    if "score" in terms:  # the body's product is then not a cosine: only the terms are compared
        model, plain = build(**terms), build(text_path=False, repeat_term=False, **terms)
        history, text = [3, 4, 3], text_table()
        x = torch.nn.functional.normalize(text, dim=-1)
        got = (model(torch.tensor([history]), text_embeddings=text).logits
               - 0.4 * plain(torch.tensor([history]), text_embeddings=text).logits)[0]  # fmt: skip
        w, b = model.text_path.weights, model.repeat_term.weights
        want = ((w[0] + w[2]) * x[3] + w[1] * x[4]) @ x.T
        want[3] += b[0] + b[2]
        want[4] += b[1]
        torch.testing.assert_close(got[1:], want[1:] / model.config.temperature, atol=1e-4, rtol=1e-4)
        return
    model, text = build(**terms), text_table()
    for history in ([3], [3, 4, 3], [1, 2, 3, 4, 5, 6]):
        got = model(torch.tensor([history]), text_embeddings=text).logits[0]
        torch.testing.assert_close(got[1:], plain_scores(model, history, text)[1:], atol=1e-4, rtol=1e-4)
    padded = torch.tensor([[3, 4, 3, 0, 0], [0, 0, 3, 4, 3]])
    both = model(padded, (padded > 0).long(), text_embeddings=text).logits
    want = model(torch.tensor([[3, 4, 3]]), text_embeddings=text).logits
    torch.testing.assert_close(both, want.expand_as(both), atol=1e-4, rtol=1e-4)


def test_the_untrained_model_is_the_text_similarity_recommender():
    """Gain 0 and one age: the ranks of the baseline, in both protocols."""
    torch.manual_seed(0)
    model = RetrForSequentialRecommendation(
        RetrConfig(item_features="text", text_size=TEXT, hidden_size=16, num_attention_heads=2, text_path=True,
                   text_path_decay=0.0, max_position_embeddings=LENGTH)
    )  # fmt: skip
    sequences, rows = some_histories()
    got = rank_histories(model, model.encode_catalog(text_table()), sequences, max_length=LENGTH)
    queries, items = text_similarity(text_table(), np.array([row[-2] for row in rows]))
    targets = np.array([row[-1] for row in rows])
    want = full_ranks(queries, items, targets, histories_of(sequences, np.arange(len(rows))))
    for protocol in ("full", "full-unseen"):
        assert np.array_equal(got[protocol], want[protocol])


@pytest.mark.parametrize("max_length", [LENGTH, 3])
def test_ranks_are_those_of_the_scores(max_length):
    model, text = build(), text_table()
    sequences, rows = some_histories()
    negatives = SimpleNamespace(item_ids=np.tile([20, 21, 22], len(rows)), offsets=np.arange(0, 3 * len(rows) + 1, 3))
    keep = [nth for nth, row in enumerate(rows) if not {20, 21, 22} & set(row.tolist())]
    sequences = SimpleNamespace(item_ids=np.concatenate([rows[nth] for nth in keep]),
                                offsets=np.cumsum([0, *(len(rows[nth]) for nth in keep)]))  # fmt: skip
    negatives = SimpleNamespace(
        item_ids=negatives.item_ids[: 3 * len(keep)], offsets=negatives.offsets[: len(keep) + 1]
    )
    got = rank_histories(model, model.encode_catalog(text), sequences, negatives, max_length, batch_size=7)
    repeats = 0
    for nth, row in enumerate(rows[nth] for nth in keep):
        history, target = row[:-1].tolist(), int(row[-1])
        scores = plain_scores(model, history[-max_length:], text)
        repeats += target in history[-max_length:]
        others = set(range(1, ITEMS + 1)) - {target}
        for protocol, candidates in (
            ("full", others),
            ("full-unseen", others - set(history)),
            ("sampled", {20, 21, 22}),
        ):
            assert got[protocol][nth] == 1 + sum(bool(scores[other] >= scores[target]) for other in candidates)
    assert repeats >= 3


def test_softmax_loss_with_added_scores_equals_the_plain_one():
    torch.manual_seed(0)
    queries, items = torch.randn(7, 5, requires_grad=True), torch.randn(9, 5, requires_grad=True)
    values = torch.randn(7, 3, requires_grad=True)
    rows = torch.randint(-1, 9, (7, 3))
    rows[0] = torch.tensor([2, 2, -1])  # one that counts twice
    targets = torch.randint(0, 9, (7,))
    logits = queries @ items.T
    for t in range(7):
        for a in range(3):
            if rows[t, a] >= 0:
                logits = logits + values[t, a] * torch.outer(torch.eye(7)[t], torch.eye(9)[rows[t, a]])
    want = torch.nn.functional.cross_entropy(logits, targets)
    want_gradients = torch.autograd.grad(want, (queries, items, values))
    got = softmax_loss(queries, items, targets, added=(rows, values), logits_per_chunk=20)
    torch.testing.assert_close(got, want)
    for one, other in zip(torch.autograd.grad(got, (queries, items, values)), want_gradients, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("cls", [RetrForPreTraining, RetrForSequentialRecommendation])
def test_loss_is_that_of_the_scores_and_every_weight_learns(cls):
    """The loss at the last step alone, over the whole table, is the cross-entropy of the scores."""
    model, text = build(cls, sequence_loss_weight=0.0), text_table()
    ids = torch.tensor([[3, 4, 3, 5]])
    labels = torch.tensor([[-100, -100, -100, 7]])
    ids_of_table = {"table_item_ids": torch.arange(ITEMS + 1)} if cls is RetrForPreTraining else {}
    loss = model(ids, labels=labels, text_embeddings=text, **ids_of_table).loss
    want = -plain_scores(model, [3, 4, 3, 5], text)[1:].log_softmax(0)[6]
    torch.testing.assert_close(loss, want, atol=1e-4, rtol=1e-4)
    loss.backward()
    assert model.text_path.gain.grad.abs() > 0
    for term in (model.text_path, model.repeat_term):
        assert (term.weights.grad[:4] != 0).all() and (term.weights.grad[4:] == 0).all()


@pytest.mark.parametrize("cls", [RetrForSequentialRecommendation, RetrForPreTraining])
def test_no_gradient_is_made_for_raw_texts(cls, monkeypatch):
    """The last TEXT columns of a candidate are data: the loss is told so, by both heads."""
    told = []
    for module in (modeling_retr, objectives):
        monkeypatch.setattr(module, "softmax_loss", lambda *a, **kw: told.append(kw) or softmax_loss(*a, **kw))
    for text_path in (True, False):
        model = build(cls, text_path=text_path, objective="softmax")
        ids = torch.tensor([[3, 5, 7, 2]])
        more = {} if cls is RetrForSequentialRecommendation else {"table_item_ids": torch.arange(ITEMS + 1)}
        labels = torch.tensor([[5, 7, 2, 9]])
        model(ids, torch.ones_like(ids), text_embeddings=text_table(), labels=labels, **more).loss.backward()
    assert [kw["constant_columns"] for kw in told] == [TEXT, 0]


def test_terms_start_as_configured_on_a_checkpoint_without_them(tmp_path):
    """Weights that a checkpoint lacks are made by transformers on the meta device, past the constructors."""
    build(text_path=False, repeat_term=False).save_pretrained(tmp_path)
    config = RetrConfig.from_pretrained(tmp_path)
    config.text_path, config.repeat_term = True, True
    model = RetrForSequentialRecommendation.from_pretrained(tmp_path, config=config)
    assert model.text_path.weights.tolist() == [0.5 * 0.5**age for age in range(LENGTH)]
    assert model.text_path.gain.item() == pytest.approx(0.4)
    assert model.repeat_term.weights.tolist() == pytest.approx([-0.3] * LENGTH)


def test_config_tells_what_the_terms_need():
    with pytest.raises(Exception, match="text_path=True reads text vectors"):
        RetrConfig(item_features="id", text_path=True)
    with pytest.raises(Exception, match="repeat_term=True is learned by the full softmax"):
        RetrConfig(objective="bpr", repeat_term=True)
    with pytest.raises(ValueError, match="every_step=True"):
        RetrForPreTraining(RetrConfig(every_step=False, repeat_term=True))
    with pytest.raises(ValueError, match="pass input_ids"):
        model = build()
        embedded = torch.randn(1, 3, 16)
        model(inputs_embeds=embedded, text_embeddings=text_table())
