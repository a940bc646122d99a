"""Result rows, the tables and the figures made from them; no torch."""
