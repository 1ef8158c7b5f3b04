"""What models of different sizes cost on the same texts: the choice of a model."""
