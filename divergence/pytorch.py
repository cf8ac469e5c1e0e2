"""Records what a PyTorch program does: one call before its training loop.

    from divergence.pytorch import record
    record(model, optimizer, "pytorch.npz")

The loop stays as it is and goes on as it would have: nothing is run twice, and no random number is drawn.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial, update_wrapper
from pathlib import Path
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from divergence.pairing import first_weights
from divergence.record import Array, Recorder, keep_plain


def record(model: nn.Module, optimizer: Any, path: str | os.PathLike[str], steps: int = 3) -> None:
    """Record the next steps of the program into a file.

    Args:
        model: called as `model(...)` by the training loop.
        optimizer: of `torch.optim`, or anything whose `step()` changes the model's parameters.
        path: of the file to write, `.npz` or `.safetensors`; it is complete after each step.
        steps: how many calls of `optimizer.step()` to record.
    """
    first, *further = getattr(optimizer, "param_groups", [vars(optimizer)])
    settings = {"name": type(optimizer).__name__, **keep_plain(first)}
    groups = {name: keep_plain(group) for group in further for name in _names_of(model, group)}
    _Watch(model, optimizer, Recorder(path, {**describe(model), "optimizer": settings, "groups": groups}, steps))


def start_from(model: nn.Module, path: str | os.PathLike[str], mapping: dict[str, str] | None = None) -> None:
    """Give the model the first weights of a record, also one of another framework.

    Raises:
        RecordError: a weight of the model has no counterpart there.
    """
    own = dict(_weights(model))
    arrays = {name: _to_numpy(weight) for name, weight in own.items()}
    for name, array in first_weights(arrays, describe(model), Path(path), mapping).items():
        with torch.no_grad():
            own[name].copy_(torch.tensor(array))


def describe(model: nn.Module) -> dict[str, Any]:
    """The framework and the layers' settings, as a record keeps them."""
    names = {id(weight): name for name, weight in _weights(model)}
    return {
        "framework": f"PyTorch {torch.__version__.partition('+')[0]}",
        "layers": {
            name: {
                "kind": type(layer).__name__,
                "weights": {role: names[id(weight)] for role, weight in _weights(layer) if id(weight) in names},
                **keep_plain({key: value for key, value in vars(layer).items() if not key.startswith("_")}),
            }
            for name, layer in _layers(model)
        },
    }


class _Watch(TorchFunctionMode):
    """Follows one step after another: forward pass, loss, backward pass, `optimizer.step()`.

    Between the model's output and the optimiser's step it sees each function of PyTorch, as a mode: the target is what
    meets the output, the loss is where the backward pass starts.
    """

    def __init__(self, model: nn.Module, optimizer: Any, recorder: Recorder) -> None:
        super().__init__()
        self.model, self.optimizer, self.recorder, self.seeing = model, optimizer, recorder, ExitStack()
        self.own_step = optimizer.step
        step = update_wrapper(lambda _, *args, **kwargs: self._step(*args, **kwargs), self.own_step)
        optimizer.step = self.watched_step = MethodType(step, optimizer)  # as a scheduler, before or after, expects it
        self.handles = [model.register_forward_pre_hook(self._begin, with_kwargs=True)]
        self.handles += [layer.register_forward_hook(partial(self._layer, name)) for name, layer in _layers(model)]
        self.handles += [model.register_forward_hook(self._output)]

    def _begin(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if torch.is_grad_enabled() and not self.recorder.has("gradients"):  # else gradients are being added up
            self.seeing.close()
            self.recorder.begin()
            self._add_weights("weights")
            self.recorder.add_all("batch", "input", map(_to_numpy, _tensors((args, kwargs))))

    def _layer(self, name: str, _: nn.Module, inputs: Any, output: Any) -> None:
        if torch.is_grad_enabled():
            for kind, value in (("input", inputs), ("output", output)):
                for tensor in [*_tensors(value)][:1]:
                    self.recorder.add("layers", f"{name}:{kind}", _to_numpy(tensor))

    def _output(self, _: nn.Module, __: Any, output: Any) -> None:
        if torch.is_grad_enabled():
            self.recorder.add_all("output", "output", map(_to_numpy, _tensors(output)))
            self.seeing.close()
            self.seeing.enter_context(self)

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        tensors = [*_tensors((args, kwargs))]
        if function is Tensor.backward:
            self.recorder.add("loss", "loss", _to_numpy(tensors[0]))
        elif any(tensor.requires_grad for tensor in tensors) and not self.recorder.has("gradients"):
            for tensor in tensors:
                if tensor.ndim and not tensor.requires_grad and not _counts_up(tensor):
                    self.recorder.add("batch", "target", _to_numpy(tensor))
        result = function(*args, **(kwargs or {}))
        if function is Tensor.backward:
            self._add_gradients("gradients")
        return result

    def _step(self, *args: Any, **kwargs: Any) -> Any:
        if self.recorder.done:  # but something else has taken hold of this method meanwhile
            return self.own_step(*args, **kwargs)
        self.seeing.close()
        if not (args or kwargs):  # else the forward pass is still to come, in a closure
            self._add_gradients("clipped" if self.recorder.has("gradients") else "gradients")
        first, *further = getattr(self.optimizer, "param_groups", None) or [{}]
        groups = {"learning_rate": first}
        groups |= {name: group for group in further for name in _names_of(self.model, group)}
        rates = {name: float(group["lr"]) for name, group in groups.items() if "lr" in group}
        result = self.own_step(*args, **kwargs)
        self.seeing.close()
        for name, rate in rates.items():
            self.recorder.add("learning_rate", name, rate)
        self._add_weights("after")
        self.recorder.end()
        if self.recorder.done:
            for handle in self.handles:
                handle.remove()
            if self.optimizer.step == self.watched_step:
                self.optimizer.step = self.own_step
        return result

    def _add_weights(self, checkpoint: str) -> None:
        for name, weight in _weights(self.model):
            self.recorder.add(checkpoint, name, _to_numpy(weight))

    def _add_gradients(self, checkpoint: str) -> None:
        for name, weight in _weights(self.model):
            if weight.grad is not None and weight.grad.is_sparse:
                rows, values = weight.grad._indices()[0], weight.grad._values()
                self.recorder.add_look_ups(checkpoint, name, weight.shape, _to_numpy(rows), _to_numpy(values))
            elif weight.grad is not None:
                self.recorder.add(checkpoint, name, _to_numpy(weight.grad))


def _layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The layers that compute, not those that only hold others."""
    return ((name, layer) for name, layer in model.named_modules() if not [*layer.children()])


def _weights(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers, in the order of the layers."""
    yield from module.named_parameters()
    yield from ((name, buffer) for name, buffer in module.named_buffers() if buffer.ndim)


def _names_of(model: nn.Module, group: dict[str, Any]) -> list[str]:
    """The names of an optimiser's group of weights."""
    members = {id(weight) for weight in group["params"]}
    return [name for name, weight in _weights(model) if id(weight) in members]


def _counts_up(tensor: Tensor) -> bool:
    """Whether a tensor is 0, 1, 2, … to 15 and on: it picks a number of each row, and is no target."""
    is_of_numbers = tensor.ndim == 1 and len(tensor) > 15 and tensor.dtype == torch.int64
    return is_of_numbers and torch.equal(tensor.cpu(), torch.arange(len(tensor)))


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple, dict)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _tensors(part)


def _to_numpy(tensor: Tensor) -> Array:
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
