"""Training: optimizers, precision, and theory of training."""
