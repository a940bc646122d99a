"""RecGURU: what its equations promise, on networks small enough to try everything."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from retr_hf.baselines.recguru import RecGuru, RecGuruConfig, rectangles, sinusoids
from retr_hf.baselines.recguru_losses import (
    Reading,
    critic_gap,
    draw_negatives,
    gradient_penalty,
    recommendation_loss,
    reconstruction_loss,
)
from retr_hf.baselines.recguru_training import Adversarial, noam
from retr_hf.evaluation.histories import rank_histories

HISTORIES = torch.tensor([[3, 1, 4, 2], [5, 2, 0, 0], [6, 1, 2, 0]])
BATCH = {
    "input_ids": torch.tensor([[3, 1, 4], [5, 0, 0], [6, 1, 0]]),
    "labels": torch.tensor([[1, 4, 2], [2, -100, -100], [1, 2, -100]]),
}
GROUPED = {
    "input_ids": torch.tensor([[3, 1, 4, 6, 1, 5]]),
    "labels": torch.tensor([[1, 4, 2, 1, 2, 2]]),
    "length_groups": ((1, 3), (1, 2), (1, 1)),
}


def small(**changes) -> RecGuru:
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    lengths = {"max_position_embeddings": 6, "source_vocab_size": 9, "vocab_size": 8}
    return RecGuru(RecGuruConfig(**sizes | lengths | changes))


def test_the_critic_tells_identical_domains_apart_by_nothing():
    model = small().eval()
    users = model.encode("b", HISTORIES)
    assert critic_gap(model.critic, users, users) == 0
    assert critic_gap(model.critic, users, users + 1) != 0


def test_the_gradient_penalty_of_a_linear_critic():
    # D(g) = 3 g_1 + 4 g_2 has a gradient of length 5 everywhere: (5 - 1)^2, whatever the users and their numbers.
    critic = torch.nn.Linear(2, 1, bias=False)
    critic.weight.data = torch.tensor([[3.0, 4.0]])
    assert gradient_penalty(critic, torch.randn(7, 2), torch.randn(4, 2)) == 16


def test_the_user_vector_does_not_read_the_decoder():
    model = small().eval()
    one = Reading(model, "b", BATCH)
    with torch.no_grad():
        for weight in (*model.decoders.parameters(), *model.recommender.parameters()):
            weight.add_(1.0)
    assert torch.equal(one.users, Reading(model, "b", BATCH).users)
    # What is decoded may differ from what was encoded: g is handed in, and changes no other way.
    states = model.decode(model.recommender, "b", HISTORIES[:, :3].flip(1), one.users)
    assert not torch.allclose(states, model.decode(model.recommender, "b", HISTORIES[:, :3], one.users))


def test_fix_enc_keeps_the_recommendation_loss_off_the_encoder():
    def gradients(loss_of):
        model = small(dropout=0.0)
        loss_of(Reading(model, "b", BATCH)).backward()
        return [weight.grad for weight in model.encoder.parameters()], model.recommender[0].linear1.weight.grad

    encoder, recommender = gradients(lambda r: recommendation_loss(r, 3, None, fix_enc=True))
    assert all(g is None or (g == 0).all() for g in encoder) and recommender.abs().sum() > 0
    for trains_it in (
        lambda r: recommendation_loss(r, 3, None, fix_enc=False),
        lambda r: reconstruction_loss(r, 3),  # with fix_enc too
    ):
        encoder, _ = gradients(trains_it)
        assert all(g is not None and torch.isfinite(g).all() for g in encoder) and encoder[-1].abs().sum() > 0


def test_padding_changes_nothing():
    model = small().eval()
    wide = torch.nn.functional.pad(HISTORIES, (0, 2))
    users = model.encode("b", HISTORIES)
    torch.testing.assert_close(model.encode("b", wide), users)
    alone = torch.cat([model.encode("b", row[row > 0][None]) for row in HISTORIES])
    torch.testing.assert_close(alone, users)
    states = model.decode(model.recommender, "b", HISTORIES, users)
    torch.testing.assert_close(model.decode(model.recommender, "b", wide, users)[:, :4], states)
    torch.testing.assert_close(model.decode(model.recommender, "b", HISTORIES[1:2, :2], users[1:2])[0], states[1, :2])


def test_the_decoder_reads_the_past_and_the_encoder_everything():
    model = small().eval()
    other = HISTORIES[:1].clone()
    other[0, 2] = 7
    users = model.encode("b", HISTORIES[:1])
    before, after = (model.decode(model.decoders["b"], "b", rows, users)[0] for rows in (HISTORIES[:1], other))
    torch.testing.assert_close(before[:2], after[:2], rtol=0, atol=1e-6)
    assert not torch.allclose(before[2], after[2]) and not torch.allclose(before[3], after[3])
    assert not torch.allclose(model.encode("b", other), users)


def test_one_slot_of_g_is_the_mean_over_n():
    """The authors repeat g; attention over equal keys gives what one gives."""
    model = small().eval()
    users = model.encode("b", HISTORIES)
    layer, x = model.recommender[0], model._embed("b", HISTORIES)
    repeated = layer(x, users[:, None].expand(-1, 4, -1), tgt_mask=torch.ones(4, 4, dtype=torch.bool).triu(1))
    once = layer(x, users[:, None], tgt_mask=torch.ones(4, 4, dtype=torch.bool).triu(1))
    torch.testing.assert_close(repeated, once)


def test_both_losses_by_hand():
    model = small().eval()
    reading = Reading(model, "b", BATCH)
    assert reading.targets.tolist() == [1, 4, 2, 2, 1, 2] and reading.owner.tolist() == [0, 0, 0, 1, 2, 2]
    assert [history.tolist() for history in reading.histories] == [HISTORIES.tolist()]
    torch.manual_seed(1)
    states = reading.states(model.decoders["b"], reading.users)
    positive, negative = reading.scores(states, 3)
    expected = -torch.log(positive.exp() / (positive.exp() + negative.exp().sum(1))).mean()
    torch.manual_seed(1)
    torch.testing.assert_close(reconstruction_loss(reading, 3), expected)
    torch.manual_seed(1)
    positive, negative = reading.scores(reading.states(model.recommender, reading.users), 5)
    torch.manual_seed(1)
    expected = -torch.log(torch.sigmoid(positive - negative.mean(1))).mean()
    torch.testing.assert_close(recommendation_loss(reading, 5, None, fix_enc=True), expected)


def test_groups_read_as_rows_do():
    model, order = small().eval(), [0, 2, 1]
    rows, groups = Reading(model, "b", BATCH), Reading(model, "b", GROUPED)
    torch.testing.assert_close(groups.users, rows.users[order])
    steps = torch.tensor([0, 1, 2, 4, 5, 3])
    assert groups.targets.tolist() == rows.targets[steps].tolist() and groups.owner.tolist() == [0, 0, 0, 1, 1, 2]
    torch.testing.assert_close(groups.states(model.recommender, groups.users),
                               rows.states(model.recommender, rows.users)[steps])  # fmt: skip
    assert [part.tolist() for part in rectangles(torch.arange(6)[None], ((2, 2), (1, 2)))] == [
        [[0, 1], [2, 3]],
        [[4, 5]],
    ]


def test_negatives_are_not_in_the_history_and_follow_their_weights():
    torch.manual_seed(0)
    read = torch.tensor([0, 0, 1, 1, 1]), torch.tensor([1, 2, 3, 3, 4])
    weights = torch.tensor([9.0, 1, 1, 1, 0, 3])
    drawn = draw_negatives(read, torch.tensor([0, 1, 0]), weights, 4000)
    assert drawn.shape == (3, 4000) and set(drawn[0].tolist()) == {3, 5} and set(drawn[1].tolist()) == {1, 2, 5}
    assert (drawn[0] == 5).float().mean() == pytest.approx(0.75, abs=0.03)
    assert (drawn[1] == 5).float().mean() == pytest.approx(0.6, abs=0.03)
    with pytest.raises(ValueError, match="all of the 2 items"):
        draw_negatives(read, torch.tensor([0]), torch.tensor([0.0, 1, 1, 0, 0, 0]), 1)


def test_noam_rises_and_falls():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule, rates = noam(optimizer, width=16, warmup=4), []
    for _ in range(6):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([0.25 * n / 8 for n in (1, 2, 3, 4)] + [0.25 * n**-0.5 for n in (5, 6)])
    assert sinusoids(2, 4)[1].tolist() == pytest.approx([np.sin(1), np.cos(1), np.sin(0.01), np.cos(0.01)])


def test_the_adversarial_phase_moves_the_critic_and_all_else_apart():
    model = small(dropout=0.0, critic_dropout=0.0)
    settings = SimpleNamespace(adversarial_learning_rate=1e-2, critic_steps=2, gradient_penalty=0.1, num_negatives=3)
    phase, before = Adversarial(model, settings), {k: v.clone() for k, v in model.state_dict().items()}
    taken = {"a": 0, "b": 0}

    def stream(side):
        while True:
            taken[side] += 1
            yield BATCH

    losses = phase.step({side: stream(side) for side in taken}, 0.0)
    assert taken == {"a": 3, "b": 3}
    assert set(losses) == {"critic", "penalty", "gap", "reconstruction_a", "reconstruction_b"}
    moved = {name.split(".")[0] for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"items", "encoder", "decoders", "critic"}  # the recommending decoder waits for its phase


def test_what_is_saved_ranks_as_what_was_made(tmp_path):
    model = small(dropout=0.5)
    lengths = np.array([3, 2, 7, 4])
    sequences = SimpleNamespace(
        item_ids=np.random.default_rng(0).integers(1, 8, lengths.sum()).astype(np.int32),
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
    )
    ranks = rank_histories(model, model.encode_catalog(), sequences, max_length=6)
    model.save_pretrained(tmp_path)
    again = RecGuru.from_pretrained(tmp_path)
    assert all(torch.equal(again.state_dict()[name], value) for name, value in model.state_dict().items())
    ranked = rank_histories(again, again.encode_catalog(), sequences, max_length=6)
    assert all((ranks[protocol] == ranked[protocol]).all() for protocol in ("full", "full-unseen"))
    # One user by hand: the history without the target, the last state against every item.
    history = torch.from_numpy(sequences.item_ids[5:11].astype(np.int64))[None]
    model.eval()
    state = model.decode(model.recommender, "b", history, model.encode("b", history))[0, -1]
    scores = model.items["b"].weight[1:] @ state
    assert ranks["full"][2] == int((scores >= scores[sequences.item_ids[11] - 1]).sum())


def test_wrong_sizes_are_told():
    with pytest.raises(Exception, match="hidden_size=9.*dropout=1.0"):
        RecGuruConfig(hidden_size=9, dropout=1.0)
