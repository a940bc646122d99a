"""RecGURU: one vector a user, made alike over two domains, and a decoder that recommends from it. Items are ids.

Li et al., *RecGURU: Adversarial Learning of Generalized User Representations for Cross-Domain Recommendation*, WSDM
2022. Domain a is the source, b the target. Legend: B users, N items, d width; x_1 .. x_n a history, e_i the vector of
item i in its domain's table, p sinusoidal positions.

    g = enc(e_x1 + p, .., e_xn + p) at x_n                  one bidirectional encoder for both domains
    h_t = dec(e_x1 + p, .., e_xt + p; g)                    causal, with cross-attention to g: a decoder a domain that
    s(t, i) = h_t · e_i                                     reconstructs, and one of the same shape that recommends
    D: R^d -> R, d -> 5d -> 10d -> 5d -> 1                  the critic, who tells g of a from g of b

How it is trained is in ``recguru_training``.

Their name -> ours: ``src_emb_a``, ``src_emb_b`` -> ``items``; ``encoder``; ``decoder_a``, ``decoder_b`` ->
``decoders``; ``recommend_b`` -> ``recommender``; ``netD`` -> ``critic``.

NOTE Padding is on the right and really masked. The authors pad on the left with 0 but mask the end token (id = size of
the vocabulary), so their encoder attends the pads, and learns a vector for them.
NOTE g is read at the last real item; the authors append the end token, and read it there.
NOTE The authors repeat g N times for the cross-attention, whose softmax over equal keys is a mean whatever the query.
One g is the same, without a dropout that would take it away whole; the query and key weights stay without effect.
NOTE Dropout within the feed-forward layers lies behind the GELU (torch's layers), theirs before it.
NOTE The recommending decoder exists for the target alone; the authors make one a domain, and train the target's.
NOTE d_k = d_v = d / heads. With the authors' d = 32 and one head it is their 32.
"""

from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.configuration_utils import PreTrainedConfig

SIDES = ("a", "b")  # source, target
MODEL_KEYS = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "dropout",
              "critic_dropout")  # fmt: skip


@strict
class RecGuruConfig(PreTrainedConfig):
    """Architecture of RecGURU; the defaults are the authors' for public data.

    hidden_size, num_hidden_layers, num_attention_heads, intermediate_size: width d, blocks of the encoder and of each
        decoder, heads, inner width of the feed-forward layers.
    dropout: after embeddings, on attention weights, in feed-forward layers; ``critic_dropout`` the critic's.
    max_position_embeddings: longest history N the model reads.
    source_vocab_size, vocab_size: rows of the two item tables, number of items + 1 (stamped by training).
    catalog_hash: hash of the target's catalogue (stamped by training).

    Raises:
        huggingface_hub StrictDataclassError: a field of the wrong type, or out of range.
    """

    model_type = "recguru"
    item_features = "id"
    uses_ids, uses_text, reads_times = True, False, False

    hidden_size: int = 32
    num_hidden_layers: int = 3
    num_attention_heads: int = 1
    intermediate_size: int = 512
    dropout: float | int = 0.5
    critic_dropout: float | int = 0.2
    max_position_embeddings: int = 100
    source_vocab_size: int = 1
    vocab_size: int = 1
    catalog_hash: str | None = None
    tie_word_embeddings: bool = False

    def validate_architecture(self):
        """All contradictions between fields, told in one ValueError (wrapped by the strict dataclass)."""
        sizes = ("num_hidden_layers", "num_attention_heads", "intermediate_size", "max_position_embeddings")
        problems = [f"{name}={getattr(self, name)}: expected at least 1" for name in sizes if getattr(self, name) < 1]
        if self.hidden_size < 2 or self.hidden_size % 2 or self.hidden_size % max(1, self.num_attention_heads):
            heads = self.num_attention_heads
            problems.append(f"hidden_size={self.hidden_size}: expected an even multiple of num_attention_heads={heads}")
        for name in ("dropout", "critic_dropout"):
            if not 0 <= getattr(self, name) < 1:
                problems.append(f"{name}={getattr(self, name)}: expected a probability in [0, 1)")
        if problems:
            raise ValueError("; ".join(problems))
        super().validate_architecture()


class RecGuru(PreTrainedModel):
    """Item tables, encoder, decoders and critic (equations at the head of this file).

    For ``evaluation.histories`` it is a recommender of domain b by a product: ``encode_users`` and
    ``candidate_vectors``.
    """

    config_class = RecGuruConfig

    adds_scores = False  # nothing is given to any item beside the product

    def __init__(self, config: RecGuruConfig):
        super().__init__(config)
        d, layers = config.hidden_size, range(config.num_hidden_layers)
        rows = {"a": config.source_vocab_size, "b": config.vocab_size}
        self.items = nn.ModuleDict({side: nn.Embedding(rows[side], d, padding_idx=0) for side in SIDES})
        self.register_buffer("positions", sinusoids(config.max_position_embeddings, d))
        self.dropout = nn.Dropout(config.dropout)
        self.encoder = nn.ModuleList(_encoder_layer(config) for _ in layers)
        self.decoders = nn.ModuleDict({side: nn.ModuleList(_decoder_layer(config) for _ in layers) for side in SIDES})
        self.recommender = nn.ModuleList(_decoder_layer(config) for _ in layers)
        widths = (d, 5 * d, 10 * d, 5 * d)
        self.critic = nn.Sequential(
            *(
                part
                for narrow, wide in zip(widths, widths[1:], strict=False)
                for part in (nn.Linear(narrow, wide), nn.ReLU(), nn.Dropout(config.critic_dropout))
            ),
            nn.Linear(widths[-1], 1),
        )
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """torch's own initialisation stays, as the authors leave it."""

    def encode(self, side: str, histories: Tensor) -> Tensor:
        """User vectors g [B, d] of histories [B, N] of one domain, 0 behind their ends."""
        real = histories > 0
        padding = None if real.all() else ~real
        x = self._embed(side, histories)
        for layer in self.encoder:
            x = layer(x, src_key_padding_mask=padding)
        return x[torch.arange(len(x), device=x.device), real.sum(1) - 1]

    def decode(self, decoder: nn.ModuleList, side: str, inputs: Tensor, users: Tensor) -> Tensor:
        """States h [B, N, d] of items [B, N], 0 behind their ends, and user vectors [B, d].

        Padding comes after every real item, so the causal mask keeps it out.
        """
        future = torch.ones(inputs.shape[1], inputs.shape[1], dtype=torch.bool, device=inputs.device).triu(1)
        x = self._embed(side, inputs)
        for layer in decoder:
            x = layer(x, users.unsqueeze(1), tgt_mask=future, tgt_is_causal=True)
        return x

    def _embed(self, side: str, items: Tensor) -> Tensor:
        """e + p [B, N, d]. The last item has the last position, as under the authors' left padding."""
        places = torch.arange(items.shape[1], device=items.device) - (items > 0).sum(1, keepdim=True)
        places = (places + len(self.positions)).clamp(max=len(self.positions) - 1)  # [B, N], padding at the last one
        return self.dropout(self.items[side](items) + self.positions[places])

    def encode_users(
        self,
        input_ids: Tensor,
        sequence_ends: Tensor | None = None,
        length_groups: tuple[tuple[int, int], ...] | None = None,
        item_embeddings: Tensor | None = None,
    ) -> Tensor:
        """What recommends to users of the target: h of the last item, [S, d].

        input_ids: histories [S, N], or groups of them [1, T] (``rectangles``). ``sequence_ends`` and
        ``item_embeddings`` are what other models read: here each history says where it ends, and the table is a weight.
        """
        queries = []
        for histories in rectangles(input_ids, length_groups):
            states = self.decode(self.recommender, "b", histories, self.encode("b", histories))
            queries.append(states[torch.arange(len(states), device=states.device), (histories > 0).sum(1) - 1])
        return torch.cat(queries)

    def encode_catalog(self, text_embeddings: None = None) -> Tensor:
        """The target's item table, [items + 1, d]; there are no texts."""
        return self.items["b"].weight

    def candidate_vectors(self, item_embeddings: Tensor) -> Tensor:
        """What is multiplied with a query: the items as they are."""
        return item_embeddings


def rectangles(flat: Tensor, length_groups: tuple[tuple[int, int], ...] | None) -> Iterator[Tensor]:
    """The groups [S, n] of one long row [1, T], in their order; without groups the rows [B, N] as they are."""
    if length_groups is None:
        yield flat
        return
    for part, (rows, columns) in zip(flat[0].split([s * n for s, n in length_groups]), length_groups, strict=True):
        yield part.view(rows, columns)


def sinusoids(length: int, width: int) -> Tensor:
    """p(t, 2k) = sin(t / 10000^(2k/d)), p(t, 2k+1) = cos(t / 10000^(2k/d)), [N, d] (Vaswani et al., 2017)."""
    angle = torch.arange(length)[:, None] * 10000.0 ** (-torch.arange(0, width, 2) / width)
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(1)


def _shape(config: RecGuruConfig) -> dict:
    return {
        "d_model": config.hidden_size,
        "nhead": config.num_attention_heads,
        "dim_feedforward": config.intermediate_size,
        "dropout": config.dropout,
        # As nn.GELU torch would take its fused path in evaluation, which computes the exact GELU and not this one.
        "activation": partial(F.gelu, approximate="tanh"),
        "layer_norm_eps": 1e-8,
        "batch_first": True,
    }


def _encoder_layer(config: RecGuruConfig) -> nn.TransformerEncoderLayer:
    """LN(x + attention(x)), then LN(x + feed-forward(x)); unlike torch's no dropout on what attention gives."""
    layer = nn.TransformerEncoderLayer(**_shape(config))
    layer.dropout1 = nn.Identity()
    return layer


def _decoder_layer(config: RecGuruConfig) -> nn.TransformerDecoderLayer:
    """The same with cross-attention in the middle."""
    layer = nn.TransformerDecoderLayer(**_shape(config))
    layer.dropout1, layer.dropout2, layer.multihead_attn.dropout = nn.Identity(), nn.Identity(), 0.0
    return layer
