"""Loss functions: pure functions from tensors to a scalar, each with its paper's equation."""
