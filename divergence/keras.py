"""Records what a Keras program does, on any backend: one call between `compile` and `fit`.

    from divergence.keras import record
    record(model, "keras.npz")

`fit` and `train_on_batch` stay as they are: nothing is run twice, and no random number is drawn. The recorded steps run
without compilation; then the program goes on as it would have. A loop of one's own, with a gradient tape, isn't seen.
"""

import contextlib
import os
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import keras
from keras import tree

from divergence.pairing import first_weights
from divergence.record import Array, Recorder, keep_plain


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
    settings = {**keep_plain(model.optimizer.get_config()), "name": type(model.optimizer).__name__}
    _Watch(model, Recorder(path, describe(model) | {"optimizer": settings}, steps))


def start_from(model: keras.Model, path: str | os.PathLike[str], mapping: dict[str, str] | None = None) -> None:
    """Give the model the first weights of a record, also one of another framework.

    Raises:
        RecordError: a weight of the model has no counterpart there.
    """
    own = {variable.path: variable for variable in _variables(model)}
    arrays = {name: _to_numpy(variable) for name, variable in own.items()}
    for name, array in first_weights(arrays, describe(model), Path(path), mapping).items():
        own[name].assign(array)


def describe(model: keras.Model) -> dict[str, Any]:
    """The framework and the layers' settings, as a record keeps them."""
    return {
        "framework": f"Keras {keras.__version__} on {keras.backend.backend()}",
        "layers": {
            name: {
                "kind": type(layer).__name__,
                "weights": {variable.path.rpartition("/")[2]: variable.path for variable in _variables(layer)},
                "penalised": [variable.path for variable in _variables(layer) if variable.regularizer is not None],
                **keep_plain(layer.get_config()),
            }
            for name, layer in _layers(model)
        },
    }


class _Watch:
    """Stands around `train_step`, the loss, the optimizer's `apply` and each layer's `call` for some steps."""

    def __init__(self, model: keras.Model, recorder: Recorder) -> None:
        self.model, self.recorder, self.eager = model, recorder, model.run_eagerly
        self.wrapped: list[tuple[Any, str]] = []
        model.run_eagerly, model.train_function = True, None
        self._wrap(model, "train_step", self._train_step)
        self._wrap(model.optimizer, "apply", self._apply)
        self._wrap(model, "compute_loss", self._compute_loss)
        for name, layer in _layers(model):
            self._wrap(layer, "call", partial(self._call, name))

    def _wrap(self, owner: Any, name: str, around: Callable[..., Any]) -> None:
        object.__setattr__(owner, name, partial(around, getattr(owner, name)))
        self.wrapped.append((owner, name))

    def _train_step(self, own: Callable[..., Any], *args: Any) -> Any:
        if self.recorder.done:  # and `fit` is still in the midst of several steps
            return own(*args)
        *state, data = args
        self.recorder.begin()
        self._add_weights("weights", *state)
        x, y, _ = keras.utils.unpack_x_y_sample_weight(data)
        self._add("batch", "input", x)
        self._add("batch", "target", y)
        result = own(*args)
        self._add_weights("after", *(result[1:] if state else []))
        self.recorder.end()
        if self.recorder.done:
            for owner, name in self.wrapped:
                object.__delattr__(owner, name)
            self.model.run_eagerly = self.eager
            self.model.make_train_function(force=True)  # `fit` looks it up for each batch
        return result

    def _add(self, checkpoint: str, name: str, value: Any) -> None:
        self.recorder.add_all(checkpoint, name, (_to_numpy(part) for part in tree.flatten(value) if part is not None))

    def _add_weights(self, checkpoint: str, state: tuple[Any, ...] = ((), (), ())) -> None:
        """The variables' values; on JAX they are in the state that a step is given and gives back."""
        optimizer = self.model.optimizer
        owners = self.model.trainable_variables, self.model.non_trainable_variables, optimizer.variables
        values = {
            id(variable): value
            for variables, given in zip(owners, state, strict=False)
            for variable, value in zip(variables, given, strict=False)
        }
        for variable in _variables(self.model):
            self.recorder.add(checkpoint, variable.path, _to_numpy(values.get(id(variable), variable)))
        rate, count = optimizer._learning_rate, optimizer.iterations
        if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
            rate = rate(values.get(id(count), count))
        self._add("learning_rate", "learning_rate", values.get(id(rate), rate))  # the one before the step counts

    def _call(self, name: str, own: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        output = own(*args, **kwargs)
        if not args or not self.recorder.has("weights"):  # JAX only asks for shapes, or the model is evaluated
            return output
        for kind, value in (("input", args), ("output", output)):
            tensor = tree.flatten(value)[0]
            if keras.ops.is_tensor(tensor) and hasattr(tensor, "shape"):
                with contextlib.suppress(TypeError):  # in a loop of JAX, as over time, there are no numbers to see
                    self.recorder.add("layers", f"{name}:{kind}", _to_numpy(tensor))
        return output

    def _compute_loss(self, own: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        loss = own(*args, **kwargs)
        if self.recorder.has("weights"):
            self._add("output", "output", kwargs["y_pred"] if "y_pred" in kwargs else args[2])
            self._add("loss", "loss", loss)
        return loss

    def _apply(self, own: Callable[..., Any], gradients: Any, variables: Any = None) -> Any:
        known = self.model.trainable_variables if variables is None else variables
        for gradient, variable in zip(gradients, known, strict=True):
            if look_ups := _look_ups(gradient):
                self.recorder.add_look_ups("gradients", variable.path, variable.shape, *map(_to_numpy, look_ups))
            elif gradient is not None:
                self.recorder.add("gradients", variable.path, _to_numpy(gradient))
        return own(gradients) if variables is None else own(gradients, variables)


def _layers(model: keras.Model) -> Iterator[tuple[str, keras.Layer]]:
    """The layers that compute, not those that only hold others; one without weights has no path, but a name."""
    seen: Counter[str] = Counter()
    for layer in model._flatten_layers(include_self=False):
        if not [*layer._flatten_layers(include_self=False)]:
            name = layer.path or layer.name
            seen[name] += 1
            yield f"{name}_{seen[name]}" if seen[name] > 1 else name, layer


def _look_ups(gradient: Any) -> tuple[Any, Any] | None:
    """The rows that were looked up, and the gradient of each, where a gradient keeps them apart."""
    if type(gradient).__name__ == "IndexedSlices":  # of TensorFlow
        return gradient.indices, gradient.values
    return (gradient._indices()[0], gradient._values()) if getattr(gradient, "is_sparse", False) else None


def _variables(layer: keras.Layer) -> list[Any]:
    """Weights and moving averages, without the states of random numbers."""
    return [variable for variable in layer.weights if variable.name != "seed_generator_state"]


def _to_numpy(tensor: Any) -> Array:
    if keras.ops.is_tensor(tensor):
        tensor = keras.ops.stop_gradient(tensor)  # while JAX differentiates, only such a one has numbers
    return keras.ops.convert_to_numpy(tensor)  # type: ignore[no-any-return]
