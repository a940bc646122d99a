"""The model: exactly what travels to the Hub. Flat, relative imports only; import from its files."""
