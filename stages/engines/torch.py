"""What makes PyTorch fast here; a trainer without it computes the same, slower.

`accelerate` looks at what a network computes. If that is look-ups in embedding tables, side by side through linear
layers with ReLU between them, then

- all parameters become parts of one vector, which Adam updates in one call;
- gradients stay where they are, in a second vector, of which `zero_grad` clears only the rows that were looked up;
- the whole network is one node for autograd: for batches this small the graph of its layers takes as long as they do;
- the dense weights lie column after column in memory: with few inputs, MKL's products are up to six times faster then.

The network's own modules stay as they were and share that memory. A network that has anything else is left to plain
autograd, and so is all that isn't training. What is changed later, so that the engine wouldn't see it, is refused.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, compress
from types import MethodType
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.autograd.function import once_differentiable

from stages.engines.workers import LookUps, Workers
from stages.program.errors import StageError, shorten
from stages.program.params import Params
from stages.training.conventions.torch_adam import AdamByConventions, sum_rows


def configure(params: Params) -> torch.device:
    """Choose the device, and set what holds for the whole process: threads, and on a GPU the same result each time."""
    device = choose_device(params.torch.device)
    torch.set_num_threads(params.train.threads)
    torch.set_flush_denormal(True)  # Adam's means of rows not seen for long fade into numbers that are slow to compute
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    return device


def choose_device(name: str) -> torch.device:
    """The device that `torch.device` names; `auto` takes a GPU if there is one, otherwise the CPU.

    `auto` passes Apple's MPS over, which has computed wrong results (https://github.com/pytorch/pytorch/issues/109457).

    Raises:
        StageError: the device isn't there.
    """
    if name == "auto":
        found = torch.accelerator.current_accelerator(check_available=True)
        return found if found and found.type != "mps" else torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = shorten(str(error).partition("\n")[0], 200)  # the rest is for PyTorch's developers
        raise StageError(f"params.yaml: torch.device is {name}, which isn't here: {reason}") from error
    return device


def accelerate(model: nn.Module, optimizer: AdamByConventions) -> AdamByConventions:
    """Install the fast engine in a model, and return the optimiser to train it with.

    To be called when the model has its last layer, device and precision, before the first step. A model that the engine
    doesn't know stays as it is, and so does the optimiser.
    """
    of_optimizer = [id(state.parameter) for state in optimizer.states]
    network = _recognise(model)
    if network is None or sorted(of_optimizer) != sorted(map(id, model.parameters())):
        return optimizer
    parameters = _FlatParameters(model, network)

    def forward(self: nn.Module, *columns: Tensor, **named: Tensor) -> Tensor:
        if self is model and self.training and torch.is_grad_enabled() and not named:
            parameters.check()
            output: Tensor = _Node.apply(parameters.flat, parameters, *columns)  # type: ignore[no-untyped-call]
        else:  # `self` may be a copy
            output = type(self).forward(self, *columns, **named)
        return output

    model.forward = MethodType(forward, model)
    model.zero_grad = parameters.zero_grad  # type: ignore[method-assign]
    return _FlatAdam(parameters, optimizer)


def share_gradients(model: nn.Module, optimizer: AdamByConventions, workers: Workers) -> AdamByConventions:
    """Let each step of the optimiser be that of all workers' rows; for any network with one look-up a row and table."""
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            module.sparse = True  # a gradient with a row for each look-up, which is all that has to travel
    step = optimizer.step

    def step_together() -> None:
        parameters = [state.parameter for state in optimizer.states]
        gradients = exchange([_gradient_of(parameter) for parameter in parameters], workers)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient if optimizer.conventions.repeated_rows == "keras" else sum_rows(gradient)
        step()

    optimizer.step = step_together  # type: ignore[method-assign]
    return optimizer


def exchange(gradients: Sequence[Tensor], workers: Workers) -> list[Tensor]:
    """The gradients of the whole batch from those of this worker's slice, sparse ones as sparse ones."""
    shared = workers.exchange(
        [
            LookUps(gradient._indices()[0], gradient._values()) if gradient.is_sparse else gradient
            for gradient in gradients
        ]
    )
    return [
        torch.sparse_coo_tensor(new.rows.unsqueeze(0), new.gradients, old.shape, check_invariants=False)
        if isinstance(new, LookUps)
        else new
        for new, old in zip(shared, gradients, strict=True)
    ]


@dataclass(frozen=True)
class _Network:
    """Look-ups in tables, side by side through linear layers with ReLU between them; the last layer's width is 1."""

    tables: list[nn.Embedding]
    layers: list[nn.Linear]

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The tables' first, then weights and biases."""
        modules = [*self.tables, *self.layers]
        return [*chain.from_iterable(module.parameters() for module in modules)]


class _Tracer(fx.Tracer):
    """Notes each call that a `forward` makes, and refuses one in a context that its notes wouldn't show."""

    def create_node(self, *arguments: Any, **named: Any) -> fx.Node:
        """Note a call."""
        if not torch.is_grad_enabled() or torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda"):
            raise ValueError("called without gradients, or in another precision")
        return super().create_node(*arguments, **named)


def _recognise(model: nn.Module) -> _Network | None:
    """What the model's `forward` computes, if the engine knows it; None if not."""
    try:
        nodes = [*_Tracer().trace(model).nodes]
    except Exception:  # a `forward` that looks at values or shapes: whatever it raises there, it isn't known
        return None
    inputs = [node for node in nodes if node.op == "placeholder"]
    lookups, rest = nodes[len(inputs) : 2 * len(inputs)], nodes[2 * len(inputs) :]
    if len(rest) < 4 or any(node.args for node in inputs):  # an input may be left out
        return None
    joined, *hidden, squeezed, _ = rest
    expected = [
        *(("call_module", lookup.target, (column,), {}) for lookup, column in zip(lookups, inputs, strict=True)),
        ("call_function", torch.cat, (lookups,), {"dim": 1}),
        *(("call_module", node.target, (before,), {}) for before, node in zip([joined, *hidden], hidden, strict=False)),
        ("call_method", "squeeze", (hidden[-1], 1), {}),
        ("output", "output", (squeezed,), {}),
    ]
    if [(node.op, node.target, node.args, node.kwargs) for node in [*lookups, *rest]] != expected:
        return None
    tables = [model.get_submodule(node.target) for node in lookups]
    layers = [model.get_submodule(node.target) for node in hidden]
    network = _Network(tables, layers[::2])  # type: ignore[arg-type]
    return network if _is_known(model, network, layers[1::2]) else None


def _is_known(model: nn.Module, network: _Network, activations: Sequence[nn.Module]) -> bool:
    """Whether the modules are of the plain kinds, and the parameters all of the model's, each used once and trained."""
    kinds = [type(module) for module in (*network.tables, *network.layers, *activations)]
    expected = [nn.Embedding] * len(network.tables) + [nn.Linear] * len(network.layers) + [nn.ReLU] * len(activations)
    if kinds != expected or len(activations) != len(network.layers) - 1:
        return False
    plain_tables = all(
        (table.padding_idx, table.max_norm, table.scale_grad_by_freq) == (None, None, False) for table in network.tables
    )
    hooked = any(hooks for module in model.modules() for name, hooks in vars(module).items() if name.endswith("_hooks"))
    hooked |= any(_hooks_of(parameter) for parameter in model.parameters())
    overridden = any("forward" in vars(module) for module in model.modules())
    used = [id(parameter) for parameter in network.parameters]
    kept = [id(parameter) for parameter in model.parameters()]
    return (
        plain_tables
        and not hooked
        and not overridden
        and network.layers[-1].out_features == 1
        and all(layer.bias is not None for layer in network.layers)
        and sorted(used) == sorted(kept)
        and all(parameter.requires_grad for parameter in network.parameters)
        and len({(parameter.dtype, parameter.device) for parameter in network.parameters}) == 1
    )


def _hooks_of(parameter: Tensor) -> list[Any]:
    return [*(parameter._backward_hooks or ()), *(parameter._post_accumulate_grad_hooks or ())]


class _FlatParameters:
    """A network's parameters and their gradients as parts of two vectors: the tables, then the dense layers."""

    def __init__(self, model: nn.Module, network: _Network) -> None:
        weights = {layer.weight for layer in network.layers}
        values = [value.data.T if value in weights else value.data for value in network.parameters]
        self.flat = nn.Parameter(torch.cat([value.flatten() for value in values]))
        self.flat.grad = self.gradient = torch.zeros_like(self.flat.data)
        sizes = [value.numel() for value in values]
        parts = zip(self.flat.data.split(sizes), self.gradient.split(sizes), strict=True)
        for parameter, value, (part, gradient) in zip(network.parameters, values, parts, strict=True):
            transposed = parameter in weights
            parameter.data = part.view(value.shape).T if transposed else part.view(value.shape)
            parameter.grad = gradient.view(value.shape).T if transposed else gradient.view(value.shape)

        tables = [table.weight for table in network.tables]
        self.tables = [table.data for table in tables]
        self.table_gradients = [_gradient_of(table) for table in tables]
        self.widths = [table.shape[1] for table in tables]
        self.tables_size = sum(table.numel() for table in tables)
        self.dense = [(layer.weight.data, layer.bias.data) for layer in network.layers]
        self.dense_gradients = [(_gradient_of(layer.weight), _gradient_of(layer.bias)) for layer in network.layers]
        self.looked_up: list[tuple[int, Tensor, Tensor]] = []
        """Since the last `zero_grad`: which table, the rows (batch,), and the gradient of each look-up (batch, dim)."""
        self.used_elsewhere: set[int] = set()
        """The tables to whose gradient autograd itself has added: the loss has a term of its own, such as a penalty."""
        for position, table in enumerate(tables):
            table.register_post_accumulate_grad_hook(lambda _, position=position: self.used_elsewhere.add(position))
        self.version = self.gradient._version
        """PyTorch's count of the gradient's changes, without those that others have made."""
        self.parameters = network.parameters
        self.containers = [(module._modules, {**module._modules}) for module in model.modules() if module._modules]
        self.state = self.read_state()

    def read_state(self) -> list[tuple[Any, ...]]:
        """Of each parameter, where its value and its gradient are, and what happens to the gradient."""
        return [
            (parameter.data_ptr(), id(parameter.grad), parameter.requires_grad, len(_hooks_of(parameter)))
            for parameter in self.parameters
        ]

    def check(self) -> None:
        """Refuse to train what isn't the network that was recognised.

        Raises:
            RuntimeError: a module was replaced; or a parameter's memory, gradient or hooks.
        """
        if self.read_state() != self.state or any(now != then for now, then in self.containers):
            raise RuntimeError("the model was changed after `accelerate`; accelerate it last, and clear by zero_grad()")

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Set the gradient to zero; it stays in its place whatever `set_to_none` says.

        All but the rows that were looked up is zero already, unless somebody else has written to the gradient.
        """
        if self.gradient._version == self.version:
            self.gradient[self.tables_size :].zero_()
            for table, rows, _ in self.looked_up:
                self.table_gradients[table].index_fill_(0, rows, 0)
        else:
            self.gradient.zero_()
        self.version = self.gradient._version
        self.looked_up.clear()
        self.used_elsewhere.clear()

    def backpropagate(self, columns: Sequence[Tensor], inputs: Sequence[Tensor], gradient: Tensor) -> None:
        """Add to the gradient.

        Args:
            columns: the rows that were looked up in each table, (batch,).
            inputs: of each layer, (batch, fan_in).
            gradient: of the network's output, (batch,).
        """
        of_others = self.gradient._version - self.version
        gradient = gradient.unsqueeze(1)
        for (weight, _), (of_weight, of_bias), values in zip(
            reversed(self.dense), reversed(self.dense_gradients), reversed(inputs), strict=True
        ):
            of_weight.T.addmm_(values.T, gradient)
            of_bias.add_(gradient.sum(0))
            gradient = gradient @ weight
            if values is not inputs[0]:
                gradient = torch.ops.aten.threshold_backward(gradient, values, 0)  # ReLU's own: a mask takes longer
        for table, (rows, lookups) in enumerate(zip(columns, gradient.split(self.widths, 1), strict=True)):
            self.table_gradients[table].index_add_(0, rows, lookups)
            self.looked_up.append((table, rows, lookups))
        self.version = self.gradient._version - of_others

    def square_gradient(self) -> Tensor:
        """The gradient's square, that of a table as the sum of the squares of its look-ups' gradients."""
        squares = self.gradient.square()
        of_tables = squares[: self.tables_size].split([table.numel() for table in self.tables])
        summed_look_ups = [position not in self.used_elsewhere for position in range(len(self.tables))]
        for of_table in compress(of_tables, summed_look_ups):
            of_table.zero_()
        for table, rows, lookups in self.looked_up:
            if summed_look_ups[table]:
                of_tables[table].view(-1, self.widths[table]).index_add_(0, rows, lookups.square())
        return squares


def _gradient_of(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


class _Node(torch.autograd.Function):
    """The whole network as one node of autograd's graph."""

    @staticmethod
    def forward(ctx: Any, flat: Tensor, parameters: _FlatParameters, *columns: Tensor) -> Tensor:
        """The network's output (batch,) for the rows (batch,) of each table."""
        columns = tuple(rows.long() for rows in columns)
        vectors = [table.index_select(0, rows) for table, rows in zip(parameters.tables, columns, strict=True)]
        inputs = [torch.cat(vectors, 1)]
        *hidden, (weight, bias) = parameters.dense
        for hidden_weight, hidden_bias in hidden:
            inputs.append(torch.addmm(hidden_bias, inputs[-1], hidden_weight.T).relu_())
        ctx.save_for_backward(flat, *columns)  # autograd refuses them once they were changed
        ctx.call = (parameters, inputs)
        return torch.addmm(bias, inputs[-1], weight.T).squeeze(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, ...]:
        """Leave the gradient where the optimiser looks for it."""
        parameters, inputs = ctx.call
        _, *columns = ctx.saved_tensors
        parameters.backpropagate(columns, inputs, gradient)
        return (None,) * len(ctx.needs_input_grad)


class _FlatAdam(AdamByConventions):
    """The same Adam, of one vector."""

    def __init__(self, parameters: _FlatParameters, optimizer: AdamByConventions) -> None:
        super().__init__([parameters.flat], optimizer.learning_rate, optimizer.conventions)
        self.flat = parameters

    def zero_grad(self) -> None:
        """Set the gradient to zero."""
        self.flat.zero_grad()

    def sum_squares(self, gradient: Tensor) -> Tensor:
        """The gradient's square, look-up by look-up."""
        return self.flat.square_gradient()
