"""Optimisers in NumPy, one formula each, with the conventions in which implementations of it differ.

A rule gives what one step subtracts from the weights; `take_steps` walks it along, with weight decay, repeated rows and
rows that no one looked up.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from divergence.record import Array


class Now(NamedTuple):
    """What a rule is given at each step."""

    gradient: Array
    square: Array
    """The gradient's square, or what is taken for it."""
    rate: float
    """The learning rate."""
    number: int
    """The step's, from 1."""
    state: dict[str, Array]
    """What the rule keeps from step to step; zero at first."""


def sgd(
    now: Now, *, momentum: float = 0.0, dampening: float = 0.0, nesterov: bool = False, rate_inside: bool = False
) -> Array:
    """Gradient descent with momentum.

    Args:
        now: the step.
        momentum: of the velocity, v ← momentum·v + (1 − dampening)·g; the first is g itself (torch/optim/sgd.py).
        dampening: what PyTorch takes off the gradients that come after the first.
        nesterov: step by g + momentum·v (Sutskever et al. 2013, as both frameworks write it).
        rate_inside: keep the velocity in units of the weights, v ← momentum·v − rate·g (keras/src/optimizers/sgd.py):
            the same unless the learning rate changes.
    """
    gradient = now.gradient * now.rate if rate_inside else now.gradient
    now.state["v"] = momentum * now.state["v"] + gradient * (1 - dampening if now.number > 1 else 1)
    step = gradient + momentum * now.state["v"] if nesterov else now.state["v"]
    return step if rate_inside else now.rate * step


def adam(
    now: Now,
    *,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-8,
    epsilon_hat: bool = False,
    rounded_betas: bool = False,
    amsgrad: bool = False,
) -> Array:
    """Adam (Kingma and Ba 2015, algorithm 1).

    Args:
        now: the step.
        beta_1: of the mean m of the gradients.
        beta_2: of the mean v of their squares.
        epsilon: added to √v̂, after the bias correction (torch/optim/adam.py).
        epsilon_hat: add it to √v instead, before the correction (the paper's form before its section 2.1;
            keras/src/optimizers/adam.py and torch.optim.SparseAdam).
        rounded_betas: βᵗ of the bias correction is that of β in float32 (Keras on TensorFlow).
        amsgrad: divide by the largest v so far (Reddi et al. 2018); PyTorch and Keras take it before the correction.
    """
    m = now.state["m"] = beta_1 * now.state["m"] + (1 - beta_1) * now.gradient
    v = now.state["v"] = beta_2 * now.state["v"] + (1 - beta_2) * now.square
    if amsgrad:
        v = now.state["largest"] = np.maximum(now.state["largest"], v)
    betas = (float(np.float32(beta)) if rounded_betas else beta for beta in (beta_1, beta_2))
    correction_1, correction_2 = (float(1 - beta**now.number) for beta in betas)
    if epsilon_hat:
        rate: float = now.rate * np.sqrt(correction_2) / correction_1
        return rate * m / (np.sqrt(v) + epsilon)
    return now.rate / correction_1 * m / (np.sqrt(v / correction_2) + epsilon)


def rmsprop(
    now: Now,
    *,
    rho: float = 0.99,
    epsilon: float = 1e-8,
    epsilon_inside: bool = False,
    momentum: float = 0.0,
    centered: bool = False,
    initial: float = 0.0,
) -> Array:
    """RMSprop (Hinton, lecture 6e; centered: Graves 2013).

    Args:
        now: the step.
        rho: of the mean of the squares (PyTorch's `alpha`).
        epsilon: added to the root (torch/optim/rmsprop.py).
        epsilon_inside: add it under the root (keras/src/optimizers/rmsprop.py).
        momentum: of the steps.
        centered: take the square of the gradients' mean off the mean of their squares.
        initial: the mean's first value (1 in TensorFlow 1's RMSPropOptimizer).
    """
    old = now.state["squares"] if now.number > 1 else initial
    now.state["squares"] = rho * old + (1 - rho) * now.square
    now.state["mean"] = rho * now.state["mean"] + (1 - rho) * now.gradient
    variance = now.state["squares"] - now.state["mean"] ** 2 if centered else now.state["squares"]
    root = np.sqrt(variance + epsilon) if epsilon_inside else np.sqrt(variance) + epsilon
    now.state["step"] = momentum * now.state["step"] + now.rate * now.gradient / root
    return now.state["step"]


def adagrad(now: Now, *, epsilon: float = 1e-10, epsilon_inside: bool = False, initial: float = 0.0) -> Array:
    """Adagrad (Duchi et al. 2011).

    Args:
        now: the step.
        epsilon: added to the root (torch/optim/adagrad.py).
        epsilon_inside: add it under the root (keras/src/optimizers/adagrad.py).
        initial: the first sum of squares: 0 in PyTorch, 0.1 in Keras.
    """
    now.state["sum"] = (now.state["sum"] if now.number > 1 else initial) + now.square
    root = np.sqrt(now.state["sum"] + epsilon) if epsilon_inside else np.sqrt(now.state["sum"]) + epsilon
    return now.rate * now.gradient / root


def take_steps(
    rule: Callable[..., Array],
    gradients: Sequence[Array],
    rates: Sequence[float],
    *,
    weights: Sequence[Array] | None = None,
    squares: Sequence[Array] | None = None,
    looked_up: Sequence[Array] | None = None,
    coupled: float = 0.0,
    decoupled: float = 0.0,
    **options: Any,
) -> list[Array]:
    """What each step subtracts from the weights, from the state of an untrained optimiser.

    Args:
        rule: one of the above.
        gradients: of consecutive steps, each row's look-ups summed; all arrays have one shape.
        rates: the learning rate of each.
        weights: before each step, for weight decay.
        squares: the sums of the squares of each row's look-ups, to be taken instead of the gradients' squares (Keras on
            TensorFlow, whose optimizers get `IndexedSlices`).
        looked_up: where True, state and weights change; the rest stays (torch.optim.SparseAdam, "lazy" Adam).
        coupled: λ of the λ·w that joins the gradient (L2; torch.optim's `weight_decay`).
        decoupled: λ of the rate·λ·w that each step takes off by itself (Loshchilov and Hutter 2019; AdamW's, Keras's).
        options: of the rule.
    """
    state, steps = defaultdict[str, Array](lambda: np.zeros_like(gradients[0])), []
    for index, (gradient, rate) in enumerate(zip(gradients, rates, strict=True)):
        weight: Any = weights[index] if weights else 0.0
        joined = gradient + coupled * weight
        square = squares[index] if squares else joined**2
        before = state.copy()
        step = rule(Now(joined, square, rate, index + 1, state), **options)
        if looked_up:
            step = np.where(looked_up[index], step, 0.0)
            state |= {name: np.where(looked_up[index], new, before[name]) for name, new in state.items()}
        steps.append(step + decoupled * rate * weight)
    return steps
