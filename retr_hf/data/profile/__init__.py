"""What a prepared domain looks like: the numbers behind a figure of it, and the warnings drawn from them; no torch."""
