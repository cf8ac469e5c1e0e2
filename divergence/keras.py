"""Records what a Keras program does, on any backend: one call between `compile` and `fit`.

    from divergence.keras import record
    record(model, "keras.npz")

`fit`, `train_on_batch` or a loop of one's own stay as they are: nothing is run twice, and no random number is drawn.
The recorded steps run without compilation; then the program goes on as it would have.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import tree

from divergence.pairing import fit_weights
from divergence.record import Array, Recorder, read_record

BACKEND = keras.backend.backend()


def record(model: keras.Model, path: str | os.PathLike[str], steps: int = 3) -> None:
    """Record the next steps of the program into a file.

    Args:
        model: compiled and built.
        path: of the file to write, `.npz` or `.safetensors`; it is complete after each step.
        steps: how many training steps to record.

    Raises:
        ValueError: the model isn't compiled, or has no weights yet.
    """
    if getattr(model, "optimizer", None) is None:
        raise ValueError("compile the model first: a record holds its optimizer's steps")
    if not model.built:
        raise ValueError(
            "build the model first, with model.build(input_shape) or a call on a batch: it has no weights yet"
        )
    _Watch(model, Recorder(path, describe(model)), steps)


def start_from(model: keras.Model, path: str | os.PathLike[str], mapping: dict[str, str] | None = None) -> None:
    """Give the model the first weights of a record, also one of another framework.

    Raises:
        RecordError: a weight of the model has no counterpart there.
    """
    own = {variable.path: variable for variable in _variables(model)}
    arrays = {name: _to_numpy(variable) for name, variable in own.items()}
    for name, array in fit_weights(arrays, False, read_record(Path(path)), mapping).items():
        own[name].assign(array)


class _Watch:
    """Stands around `train_step`, the loss, the optimizer's `apply` and each layer's `call` for some steps."""

    def __init__(self, model: keras.Model, recorder: Recorder, steps: int) -> None:
        self.model, self.recorder, self.steps = model, recorder, steps
        self.eager = model.run_eagerly
        self.wrapped: list[tuple[Any, str]] = []
        model.run_eagerly = True
        model.train_function = None
        self._wrap(model, "train_step", self._train_step)
        self._wrap(model.optimizer, "apply", self._apply)
        if BACKEND == "jax":  # inside its differentiated function there are no numbers to see
            self._wrap(model, "_update_metrics_variables", self._updated)
        else:
            self._wrap(model, "compute_loss", self._compute_loss)
            for name, layer in _layers(model):
                self._wrap(layer, "call", self._call_of(name))

    def _wrap(self, owner: Any, name: str, around: Callable[..., Any]) -> None:
        own = getattr(owner, name)
        object.__setattr__(owner, name, lambda *args, **kwargs: around(own, *args, **kwargs))
        self.wrapped.append((owner, name))

    def _train_step(self, own: Callable[..., Any], *args: Any) -> Any:
        if self.recorder.steps == self.steps:  # done, and `fit` is still in the midst of several steps
            return own(*args)
        *state, data = args
        self.recorder.begin()
        self._add_weights("weights", *state)
        x, y, _ = keras.utils.unpack_x_y_sample_weight(data)
        for name, value in (("input", x), ("target", y)):
            for position, tensor in enumerate(part for part in tree.flatten(value) if part is not None):
                self.recorder.add("batch", f"{name}{position or ''}", _to_numpy(tensor))
        result = own(*args)
        self._add_weights("after", *(result[1:] if state else []))
        self.recorder.end()
        if self.recorder.steps == self.steps:
            self._finish()
        return result

    def _add_weights(self, checkpoint: str, state: tuple[Any, ...] = ((), (), ())) -> None:
        """The variables' values; on JAX they are in the state that a step is given and gives back."""
        model, optimizer = self.model, self.model.optimizer
        owners = model.trainable_variables, model.non_trainable_variables, optimizer.variables
        values = {
            id(v): value for of, given in zip(owners, state, strict=False) for v, value in zip(of, given, strict=False)
        }
        for variable in _variables(model):
            self.recorder.add(checkpoint, variable.path, _to_numpy(values.get(id(variable), variable)))
        rate = optimizer._learning_rate
        if checkpoint == "weights" and not isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
            self.recorder.add("learning_rate", "learning_rate", _to_numpy(values.get(id(rate), rate)))
        elif checkpoint == "weights" and not values:
            self.recorder.add("learning_rate", "learning_rate", _to_numpy(optimizer.learning_rate))

    def _call_of(self, name: str) -> Callable[..., Any]:
        def call(own: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            output = own(*args, **kwargs)
            for kind, value in (("input", args), ("output", output)):
                for tensor in tree.flatten(value)[:1]:
                    if keras.ops.is_tensor(tensor) and hasattr(tensor, "shape"):
                        self.recorder.add("layers", f"{name}:{kind}", _to_numpy(tensor))
            return output

        return call

    def _compute_loss(self, own: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        loss = own(*args, **kwargs)
        output = kwargs["y_pred"] if "y_pred" in kwargs else args[2]
        self._add_output(output, loss)
        return loss

    def _updated(
        self, own: Callable[..., Any], variables: Any, loss: Any, x: Any, y: Any, output: Any, *rest: Any
    ) -> Any:
        self._add_output(output, loss)
        return own(variables, loss, x, y, output, *rest)

    def _add_output(self, output: Any, loss: Any) -> None:
        for position, tensor in enumerate(tree.flatten(output)):
            self.recorder.add("output", f"output{position or ''}", _to_numpy(tensor))
        self.recorder.add("loss", "loss", _to_numpy(loss))

    def _apply(self, own: Callable[..., Any], gradients: Any, variables: Any = None) -> Any:
        known = self.model.trainable_variables if variables is None else variables
        for gradient, variable in zip(gradients, known, strict=True):
            if gradient is not None:
                summed, squares = _gradient(gradient)
                self.recorder.add("gradients", variable.path, summed)
                if squares is not None:
                    self.recorder.add("squares", variable.path, squares)
        return own(gradients, variables) if variables is not None else own(gradients)

    def _finish(self) -> None:
        for owner, name in self.wrapped:
            object.__delattr__(owner, name)
        self.model.run_eagerly = self.eager
        self.model.make_train_function(force=True)  # `fit` looks it up for each batch


def describe(model: keras.Model) -> dict[str, Any]:
    """The framework, the optimiser's settings and the layers', as a record keeps them."""
    return {
        "framework": f"Keras {keras.__version__} on {BACKEND}",
        "optimizer": {"name": type(model.optimizer).__name__, **_plain(model.optimizer.get_config())},
        "layers": {
            name: {
                "kind": type(layer).__name__,
                "weights": {variable.path.rpartition("/")[2]: variable.path for variable in _variables(layer)},
                **_plain(layer.get_config()),
            }
            for name, layer in _layers(model)
        },
    }


def _layers(layer: keras.Layer) -> Iterator[tuple[str, keras.Layer]]:
    """The layers that compute, not those that only hold others; a recurrent or attention layer is one."""
    units = (keras.layers.RNN, keras.layers.Bidirectional, keras.layers.MultiHeadAttention)
    for part in layer._flatten_layers(include_self=False, recursive=False):
        if isinstance(part, units) or not [*part._flatten_layers(include_self=False, recursive=False)]:
            yield part.name, part
        else:
            yield from ((f"{part.name}/{name}", inner) for name, inner in _layers(part))


def _variables(layer: keras.Layer) -> list[Any]:
    """Weights and moving averages, without the states of random numbers."""
    return [variable for variable in layer.weights if variable.name != "seed_generator_state"]


def _plain(settings: dict[str, Any]) -> dict[str, Any]:
    kept = {key: [*value] if isinstance(value, tuple) else value for key, value in settings.items() if key != "name"}
    return {
        key: value
        for key, value in kept.items()
        if all(isinstance(part, (bool, int, float, str)) for part in (value if isinstance(value, list) else [value]))
    }


def _gradient(gradient: Any) -> tuple[Array, Array | None]:
    """A gradient with each row's look-ups summed; and, where they are kept apart, the sum of their squares."""
    if type(gradient).__name__ == "IndexedSlices":  # of TensorFlow
        rows, values = np.array(gradient.indices), np.array(gradient.values)
        summed, squares = (np.zeros(tuple(gradient.dense_shape), values.dtype) for _ in range(2))
        np.add.at(summed, rows, values)
        np.add.at(squares, rows, values**2)
        return summed, squares
    if BACKEND == "torch" and gradient.is_sparse:
        from divergence.pytorch import _gradient as gradient_of

        return gradient_of(gradient)
    return _to_numpy(gradient), None


def _to_numpy(tensor: Any) -> Array:
    array = np.array(keras.ops.convert_to_numpy(tensor))
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array
