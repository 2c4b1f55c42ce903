"""A system in a package of its own: a line fitted by gradient descent."""
