"""Sparsity: tickets, pruning, and what is hidden in random networks."""
