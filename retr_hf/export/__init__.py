"""What a model becomes where it is served without this package: programs, an index, the items' names."""
