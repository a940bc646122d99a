"""Systems that do not fit the body: each gives queries and items for the same ranking functions."""
