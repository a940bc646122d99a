"""Raw interactions in, prepared domains out: readers, preparation, text embeddings, mixtures. No torch, no model."""
