"""PyTorch and TensorFlow in one process, without the crash that their order can bring.

PyTorch's CUDA build for Linux brings triton, and loads it when it makes its first optimiser. triton 3.7 and TensorFlow
2.21 each carry an LLVM of their own: TensorFlow before triton ends with a segmentation fault, triton before TensorFlow
doesn't. docs/machines.md shows it.
"""

import contextlib
import importlib.util
import sys


def load_triton_first() -> None:
    """Load triton, where it is installed; to be called before anything loads TensorFlow.

    Raises:
        RuntimeError: TensorFlow is loaded, triton isn't: to load it now, as PyTorch would, can crash the process.
    """
    if "tensorflow" in sys.modules and "triton" not in sys.modules and importlib.util.find_spec("triton"):
        raise RuntimeError(
            "TensorFlow is loaded already, and triton would crash after it: import triton before TensorFlow"
        )
    with contextlib.suppress(ImportError):
        importlib.import_module("triton")
