"""Which convention causes which part of the gap between PyTorch and Keras."""

import stages  # noqa: F401  # at once: from then on Ctrl-C ends this process in order, while the rest still loads
