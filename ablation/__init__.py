"""Which convention causes which part of the gap between PyTorch and Keras."""
