"""Books for a reader, from the trained weights: no framework is loaded."""

import os

# Many readers' lists are made on as many threads as there are processors: each has its own matrix products. It counts
# only if it is set before NumPy loads.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
