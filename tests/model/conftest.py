"""A shop of nine items, and small models that serve it."""

from types import SimpleNamespace

import pytest
import torch


@pytest.fixture(scope="session")
def shop():
    """``items`` raw id -> title, ``catalogue(...)`` of them by the hashing encoder, ``recommender(features, ...)``."""
    from retr_hf.model.configuration_retr import RetrConfig
    from retr_hf.model.item_catalog import ItemCatalog
    from retr_hf.model.modeling_retr import RetrForSequentialRecommendation
    from retr_hf.model.processing_retr import RetrProcessor
    from retr_hf.model.recommender import Recommender
    from retr_hf.model.text_encoders import encode_like, load_encoder

    items = {f"item-{number}": f"title of number {number}" for number in range(9)}

    def catalogue(items=items, encoder="hashing:16"):
        encoder = load_encoder(encoder)
        metadata = {"encoder": encoder.name, "revision": encoder.revision, "prompt": "", "normalized": "true"}
        ids, texts = list(items), list(items.values())
        return ItemCatalog(ids, texts, encode_like(ItemCatalog(ids, texts), texts, encoder), metadata)

    def recommender(features="text", catalog=None, processor=None, **changes):
        torch.manual_seed(0)
        catalog = catalog or catalogue()
        config = RetrConfig(
            hidden_size=16, num_attention_heads=2, text_size=16, num_experts=2, max_position_embeddings=5,
            item_features=features, vocab_size=len(catalog) + 1 if "id" in features else 1,
            text_encoder=catalog.text_encoder if "text" in features else None,
            catalog_hash=catalog.hash if "id" in features else None, **changes,
        )  # fmt: skip
        processor = RetrProcessor(catalog, 5, text_whitening=config.text_whitening, **(processor or {}))
        return Recommender(RetrForSequentialRecommendation(config), processor)

    return SimpleNamespace(items=items, catalogue=catalogue, recommender=recommender)
