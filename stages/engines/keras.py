"""What makes Keras exact and quiet here: its backend, precision and threads, and weights that are written from memory.

Keras chooses its backend once, when it is first imported. Here that is after the parameters are read: hence the imports
inside functions.
"""

import io
import os
from typing import TYPE_CHECKING, Any

from stages.program.params import Params

if TYPE_CHECKING:
    import keras

    from stages.engines.workers import Workers


def configure(params: Params) -> None:
    """Load Keras on the backend, in the precision and with the threads of params.yaml; once in a process."""
    backend = params.keras.backend
    os.environ["KERAS_BACKEND"] = backend
    os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"  # its kernels round differently from one processor to the next
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if backend == "torch":
        import torch

        # Keras would take Apple's MPS before either.
        os.environ["KERAS_TORCH_DEVICE"] = "cuda" if torch.cuda.is_available() else "cpu"
        torch.set_num_threads(params.train.threads)
    else:
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(params.train.threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
        tf.config.experimental.enable_tensor_float_32_execution(False)  # as PyTorch: on GPUs it has 10 bits, not 23
        if tf.config.list_physical_devices("GPU"):
            tf.config.experimental.enable_op_determinism()
    set_precision(params.train.precision)


def set_precision(precision: str) -> None:
    """Make Keras compute in float32 or float64.

    On every backend but TensorFlow, Keras's type promotion turns float64 into float32, in matrix products and means,
    even under `set_floatx("float64")`; there is no public switch (https://github.com/keras-team/keras/issues/23704).
    """
    import keras
    from keras.src.backend.common import dtypes

    keras.config.set_floatx(precision)
    keras.config.set_dtype_policy(precision)  # layers go by this one, which follows floatx only until the first layer
    if keras.backend.backend() != "tensorflow":
        dtypes.BIT64_TO_BIT32_DTYPE["float64"] = precision


def share_gradients(model: "keras.Model", workers: "Workers") -> None:
    """Let each step of a compiled model's optimiser be that of all workers' rows; `fit` stays as it is."""
    import keras

    from stages.training.conventions.keras_adam import SparseEmbedding

    exchange = _exchange_in_tensorflow if keras.backend.backend() == "tensorflow" else _exchange_in_torch
    apply = model.optimizer.apply
    model.optimizer.apply = lambda gradients, variables=None: apply(exchange([*gradients], model, workers), variables)
    if keras.backend.backend() == "torch":
        for layer in model.layers:
            if isinstance(layer, keras.layers.Embedding):
                layer.__class__ = SparseEmbedding  # a gradient with a row for each look-up: all that has to travel


def _exchange_in_torch(gradients: list[Any], model: "keras.Model", workers: "Workers") -> list[Any]:
    from stages.engines.torch import exchange
    from stages.training.conventions.keras_adam import AdamByConventions, sum_rows

    gradients = exchange(gradients, workers)
    takes_sparse = isinstance(model.optimizer, AdamByConventions)
    return gradients if takes_sparse else [sum_rows(gradient) for gradient in gradients]


def _exchange_in_tensorflow(gradients: list[Any], model: "keras.Model", workers: "Workers") -> list[Any]:
    """In TensorFlow's graph, one call of a Python function."""
    import tensorflow as tf
    import torch

    from stages.engines.workers import LookUps

    def exchange(*arrays: Any) -> list[Any]:
        tensors = map(torch.from_numpy, arrays)
        shared = workers.exchange(
            [LookUps(next(tensors), next(tensors)) if is_sparse else next(tensors) for is_sparse in sparse]
        )
        return [part.numpy() for new in shared for part in (new if isinstance(new, LookUps) else [new])]

    sparse = [isinstance(gradient, tf.IndexedSlices) for gradient in gradients]
    parts = [
        [old.indices, old.values] if is_sparse else [old] for old, is_sparse in zip(gradients, sparse, strict=True)
    ]
    types = [tf.int64 if part.dtype.is_integer else part.dtype for of_gradient in parts for part in of_gradient]
    shared = iter(tf.numpy_function(exchange, [part for of_gradient in parts for part in of_gradient], types))

    def unpack(old: Any) -> Any:
        new = next(shared)
        if isinstance(old, tf.IndexedSlices):
            return tf.IndexedSlices(next(shared), new, old.dense_shape)
        return tf.ensure_shape(new, old.shape)

    return [unpack(gradient) for gradient in gradients]


def describe() -> str:
    """The versions and the device that train."""
    import keras

    if keras.backend.backend() == "torch":
        import torch

        return f"Keras {keras.__version__} on PyTorch {torch.__version__} on {keras.ops.zeros(()).device}"
    import tensorflow as tf

    devices = tf.config.list_physical_devices("GPU") or tf.config.list_physical_devices("CPU")
    return f"Keras {keras.__version__} on TensorFlow {tf.__version__} on {devices[0].device_type}"


def save_weights(model: "keras.Model") -> bytes:
    """The weights as HDF5: from memory, because its library crashes the process where it fills up a disk."""
    memory = _Memory()
    model.save_weights(memory)
    return memory.getvalue()


class _Memory(io.BytesIO):
    """A file in memory, of the kind that Keras asks for by its name."""

    def __str__(self) -> str:
        return "memory.weights.h5"
