"""Adam in Keras, on TensorFlow or on PyTorch, following the conventions of either framework."""

from typing import Any

import keras
import numpy as np
from keras import ops

from stages.training.conventions import KERAS_PROGRAMS, AdamConventions, own_adam


def make_adam(learning_rate: float, conventions: AdamConventions) -> keras.optimizers.Optimizer:
    """Keras's own Adam where that follows the conventions, otherwise one that does."""
    if conventions == own_adam(KERAS_PROGRAMS[keras.backend.backend()], keras.config.floatx()):
        return keras.optimizers.Adam(learning_rate)
    return AdamByConventions(learning_rate, conventions)


class AdamByConventions(keras.optimizers.Adam):
    """Keras's Adam with a choice of where ε goes, how βᵗ is rounded, and what becomes of rows that repeat in a batch.

    On PyTorch, `repeated_rows: keras` needs `SparseEmbedding`: then a gradient holds one row for each look-up.
    """

    def __init__(self, learning_rate: float, conventions: AdamConventions) -> None:
        super().__init__(learning_rate)
        self.conventions = conventions

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update one variable from its gradient."""
        index = self._get_variable_index(variable)
        m, v = self._momentums[index], self._velocities[index]
        learning_rate = ops.cast(learning_rate, variable.dtype)
        power_1, power_2 = self._power(self.beta_1, variable.dtype), self._power(self.beta_2, variable.dtype)
        correction_1 = ops.cast(1 - power_1, variable.dtype)
        correction_2 = ops.cast(ops.sqrt(1 - power_2), variable.dtype)

        summed = sum_rows(gradient)
        squared = sum_squared_rows(gradient) if self.conventions.repeated_rows == "keras" else ops.square(summed)
        self.assign_add(m, (summed - m) * (1 - self.beta_1))
        self.assign_add(v, (squared - v) * (1 - self.beta_2))
        if self.conventions.epsilon == "torch":
            step = m * (learning_rate / correction_1) / (ops.sqrt(v) / correction_2 + 1e-8)
        else:
            step = m * (learning_rate * correction_2 / correction_1) / (ops.sqrt(v) + 1e-7)
        self.assign_sub(variable, step)

    def _power(self, beta: float, dtype: Any) -> Any:
        """βᵗ, in float64 or, as in Keras on TensorFlow, of β rounded to float32 and in the variable's precision."""
        if self.conventions.betas == "keras":
            beta = float(np.float32(beta))
        else:
            dtype = "float64"
        base = ops.cast(ops.convert_to_tensor(np.float64(beta)), dtype)
        return ops.power(base, ops.cast(self.iterations + 1, dtype))


def choose_embedding(conventions: AdamConventions) -> type[keras.layers.Embedding]:
    """Keras's own embedding where its gradients suit the conventions, otherwise one whose do."""
    sparse = keras.backend.backend() == "torch" and conventions.repeated_rows == "keras"
    return SparseEmbedding if sparse else keras.layers.Embedding


class SparseEmbedding(keras.layers.Embedding):
    """Keras's Embedding on PyTorch, with gradients that hold one row for each look-up, as they do on TensorFlow."""

    def call(self, inputs: Any) -> Any:
        """Look up the rows of `inputs`, shape (batch,): (batch, embedding_dim)."""
        import torch

        return torch.nn.functional.embedding(inputs, self.embeddings.value, sparse=True)


def sum_rows(gradient: Any) -> Any:
    """The gradient as a dense tensor: the gradients of one row's look-ups are added up."""
    if keras.backend.backend() == "torch":
        from stages.training.conventions import torch_adam

        return torch_adam.sum_rows(gradient)
    import tensorflow as tf

    return tf.convert_to_tensor(gradient)


def sum_squared_rows(gradient: Any) -> Any:
    """The squares of the gradient as a dense tensor: each look-up's gradient is squared before they are added up."""
    if keras.backend.backend() == "torch":
        from stages.training.conventions import torch_adam

        return torch_adam.sum_squared_rows(gradient)
    import tensorflow as tf

    return tf.convert_to_tensor(ops.square(gradient))
