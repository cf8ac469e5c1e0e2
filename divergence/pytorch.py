"""Records what a PyTorch program does: one call before its training loop.

    from divergence.pytorch import record
    record(model, optimizer, "pytorch.npz")

The loop stays as it is and goes on as it would have: nothing is run twice, and no random number is drawn.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from divergence.pairing import fit_weights
from divergence.record import Array, Recorder, read_record


def record(model: nn.Module, optimizer: Any, path: str | os.PathLike[str], steps: int = 3) -> None:
    """Record the next steps of the program into a file.

    Args:
        model: called as `model(...)` by the training loop.
        optimizer: of `torch.optim`, or anything whose `step()` changes the model's parameters.
        path: of the file to write, `.npz` or `.safetensors`; it is complete after each step.
        steps: how many calls of `optimizer.step()` to record.
    """
    _Watch(model, optimizer, Recorder(path, describe(model, optimizer)), steps)


def start_from(model: nn.Module, path: str | os.PathLike[str], mapping: dict[str, str] | None = None) -> None:
    """Give the model the first weights of a record, also one of another framework.

    Raises:
        RecordError: a weight of the model has no counterpart there.
    """
    own = dict(_weights(model))
    found = fit_weights(
        {name: _to_numpy(weight) for name, weight in own.items()}, True, read_record(Path(path)), mapping
    )
    with torch.no_grad():
        for name, array in found.items():
            own[name].copy_(torch.from_numpy(array.copy()))


class _Watch:
    """Follows one step after another: forward pass, loss, backward pass, `optimizer.step()`."""

    def __init__(self, model: nn.Module, optimizer: Any, recorder: Recorder, steps: int) -> None:
        self.model, self.optimizer, self.recorder, self.steps = model, optimizer, recorder, steps
        self.loss = _LossWatch(self)
        self.own_step = optimizer.step
        optimizer.step = self._step
        self.handles = [model.register_forward_pre_hook(self._begin, with_kwargs=True)]
        self.handles += [layer.register_forward_hook(self._layer_hook(name)) for name, layer in _layers(model)]
        self.handles += [model.register_forward_hook(self._output)]

    def _begin(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not torch.is_grad_enabled() or self.recorder.has("gradients"):
            return  # an evaluation; or one more pass whose gradients are added to the first one's
        self.loss.stop()
        self.recorder.begin()
        self._add_weights("weights")
        for position, tensor in enumerate(_tensors((args, kwargs))):
            self.recorder.add("batch", f"input{position or ''}", _to_numpy(tensor))

    def _layer_hook(self, name: str) -> Callable[..., None]:
        def hook(_: nn.Module, inputs: Any, output: Any) -> None:
            if torch.is_grad_enabled():
                for kind, value in (("input", inputs), ("output", output)):
                    for tensor in [*_tensors(value)][:1]:
                        self.recorder.add("layers", f"{name}:{kind}", _to_numpy(tensor))

        return hook

    def _output(self, _: nn.Module, __: Any, output: Any) -> None:
        if torch.is_grad_enabled():
            for position, tensor in enumerate(_tensors(output)):
                self.recorder.add("output", f"output{position or ''}", _to_numpy(tensor))
            self.loss.start()

    def add_target(self, tensor: Tensor) -> None:
        self.recorder.add("batch", "target", _to_numpy(tensor))

    def add_gradients(self, checkpoint: str) -> None:
        for name, weight in _weights(self.model):
            if weight.grad is not None:
                summed, squares = _gradient(weight.grad)
                self.recorder.add(checkpoint, name, summed)
                if squares is not None and checkpoint == "gradients":
                    self.recorder.add("squares", name, squares)

    def _add_weights(self, checkpoint: str) -> None:
        for name, weight in _weights(self.model):
            self.recorder.add(checkpoint, name, _to_numpy(weight))

    def _step(self, *args: Any, **kwargs: Any) -> Any:
        if not self.handles:  # done, but something else has taken hold of this method meanwhile
            return self.own_step(*args, **kwargs)
        self.loss.stop()
        self.add_gradients("clipped" if self.recorder.has("gradients") else "gradients")
        self.recorder.drop_repeated("clipped", "gradients")
        for group in getattr(self.optimizer, "param_groups", [])[:1]:
            self.recorder.add("learning_rate", "learning_rate", float(group["lr"]))
        result = self.own_step(*args, **kwargs)
        self._add_weights("after")
        self.recorder.end()
        if self.recorder.steps == self.steps:
            self._finish()
        return result

    def _finish(self) -> None:
        for handle in self.handles:
            handle.remove()
        self.handles = []
        if self.optimizer.step == self._step:
            self.optimizer.step = self.own_step


class _LossWatch(TorchFunctionMode):
    """Sees what becomes of the model's output: it meets the target, and the backward pass starts at the loss."""

    def __init__(self, watch: _Watch) -> None:
        super().__init__()
        self.watch = watch
        self.running = False

    def start(self) -> None:
        if not self.running:
            self.running = True
            self.__enter__()  # type: ignore[no-untyped-call]

    def stop(self) -> None:
        if self.running:
            self.running = False
            self.__exit__(None, None, None)  # type: ignore[no-untyped-call]

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if function is not Tensor.backward:
            tensors = [*_tensors((args, kwargs))]
            if any(tensor.requires_grad for tensor in tensors):
                for tensor in tensors:
                    if tensor.ndim and not tensor.requires_grad:
                        self.watch.add_target(tensor)
            return function(*args, **kwargs)
        self.watch.recorder.add("loss", "loss", _to_numpy(args[0]))
        result = function(*args, **kwargs)
        self.watch.add_gradients("gradients")
        return result


def describe(model: nn.Module, optimizer: Any) -> dict[str, Any]:
    """The framework, the optimiser's settings and the layers', as a record keeps them."""
    groups = getattr(optimizer, "param_groups", None)
    settings = _plain(
        {key: value for key, value in groups[0].items() if key != "params"} if groups else vars(optimizer)
    )
    return {
        "framework": f"PyTorch {torch.__version__.partition('+')[0]}",
        "optimizer": {"name": type(optimizer).__name__, **settings},
        "layers": {
            name: {
                "kind": type(layer).__name__,
                "weights": {role: ".".join(filter(None, [name, role])) for role, _ in _weights(layer)},
                **_plain(vars(layer)),
            }
            for name, layer in _layers(model)
        },
    }


def _layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, layer in model.named_modules():
        if not [*layer.children()] and layer is not model:
            yield name, layer


def _weights(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers, in the order of the layers."""
    yield from module.named_parameters()
    yield from ((name, buffer) for name, buffer in module.named_buffers() if buffer.ndim)


def _plain(settings: dict[str, Any]) -> dict[str, Any]:
    kept = (bool, int, float, str, type(None))
    plain = {key: [*value] if isinstance(value, tuple) else value for key, value in settings.items()}
    return {
        key: value
        for key, value in plain.items()
        if not key.startswith("_")
        and all(isinstance(part, kept) for part in (value if isinstance(value, list) else [value]))
    }


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _tensors([*value.values()])
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _tensors(part)


def _gradient(gradient: Tensor) -> tuple[Array, Array | None]:
    """A gradient with each row's look-ups summed; and, where they are kept apart, the sum of their squares."""
    if not gradient.is_sparse:
        return _to_numpy(gradient), None
    squares = torch.sparse_coo_tensor(
        gradient._indices(), gradient._values().square(), gradient.shape, check_invariants=False
    )
    return _to_numpy(gradient.to_dense()), _to_numpy(squares.to_dense())


def _to_numpy(tensor: Tensor) -> Array:
    tensor = tensor.detach()
    if tensor.dtype == torch.bfloat16:
        tensor = tensor.float()
    return np.array(tensor.resolve_conj().cpu().numpy())
