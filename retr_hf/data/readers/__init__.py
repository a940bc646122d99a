"""One file a raw format; each documents the dirt it cleans and returns a RawDomain. No torch, no model."""
