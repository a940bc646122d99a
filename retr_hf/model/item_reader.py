"""ItemReader: how a body reads items, through ids, texts or both.

Letters: M rows of an item table, T text width, d width. What an item table is, is told at the top of body_retr.py.
"""

import torch
from torch import nn

from .configuration_retr import RetrConfig
from .item_encoder import MixtureOfExpertsAdaptor


class ItemReader:
    """The item side of a body, for every class of bodies: the id table, the text adaptor, and the table they make."""

    config: RetrConfig

    def build_items(self, config: RetrConfig) -> None:
        """Makes the weights that ``config.item_features`` asks for."""
        if config.uses_ids:
            self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size, config.pad_token_id)
        if config.uses_text:
            self.item_adaptor = MixtureOfExpertsAdaptor(config)

    def get_input_embeddings(self):
        """The id table, or None where items are read through text alone."""
        return getattr(self, "embed_tokens", None)

    def set_input_embeddings(self, value):
        """Replaces the id table."""
        self.embed_tokens = value

    def encode_items(
        self, item_ids: torch.Tensor | None = None, text_embeddings: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Item vectors e [M, d]: id embedding, adapted text, or their sum.

        item_ids: [M] catalogue indices; None means the table is the whole catalogue, row i being item i.
        text_embeddings: [M, T], required where the config reads text.

        Raises:
            ValueError: text vectors are missing or have another width than ``config.text_size``.
        """
        vectors = 0
        if self.config.uses_text:
            if text_embeddings is None:
                raise ValueError(
                    f'item_features="{self.config.item_features}" reads item texts: pass text_embeddings [M, '
                    f"{self.config.text_size}] (ItemCatalog.item_table()) or item_embeddings"
                )
            if text_embeddings.shape[-1] != self.config.text_size:
                raise ValueError(
                    f"text_embeddings are {text_embeddings.shape[-1]} wide, the model reads {self.config.text_size}: "
                    f"embed the catalogue with the encoder the model was trained with ({self.config.text_encoder})"
                )
            vectors = self.item_adaptor(text_embeddings.to(self.item_adaptor.centers.dtype))
        if self.config.uses_ids:
            vectors = vectors + (self.embed_tokens.weight if item_ids is None else self.embed_tokens(item_ids))
        return vectors

    def look_up(self, rows: torch.Tensor, item_embeddings: torch.Tensor) -> torch.Tensor:
        """Item vectors [..., d] of table rows; columns of the table beyond d are a head's own."""
        return nn.functional.embedding(rows, item_embeddings[:, : self.config.hidden_size])
