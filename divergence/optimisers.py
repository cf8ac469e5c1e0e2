"""Optimisers in NumPy, one formula each, with the conventions in which implementations of it differ.

Each takes the gradients of consecutive steps, oldest first, and the learning rate of each, starts from the state of an
untrained optimiser, and gives what each step subtracts from the weights. All arrays of a call have one shape.
"""

from collections.abc import Sequence

import numpy as np

from divergence.record import Array


def sgd(
    gradients: Sequence[Array],
    rates: Sequence[float],
    *,
    momentum: float = 0.0,
    dampening: float = 0.0,
    nesterov: bool = False,
    rate_inside: bool = False,
) -> list[Array]:
    """Gradient descent with momentum.

    Args:
        gradients: of consecutive steps.
        rates: the learning rate of each.
        momentum: of the velocity, v ← momentum·v + (1 − dampening)·g; the first is g itself (torch/optim/sgd.py).
        dampening: what PyTorch takes off the gradients that come after the first.
        nesterov: step by g + momentum·v (Sutskever et al. 2013, as both frameworks write it).
        rate_inside: keep the velocity in units of the weights, v ← momentum·v − rate·g (keras/src/optimizers/sgd.py):
            the same unless the learning rate changes.
    """
    steps, velocity = [], np.zeros_like(gradients[0])
    for number, (gradient, rate) in enumerate(zip(gradients, rates, strict=True)):
        scaled = gradient * rate if rate_inside else gradient
        velocity = momentum * velocity + scaled * (1 - dampening if number else 1)
        step = scaled + momentum * velocity if nesterov else velocity
        steps.append(step if rate_inside else rate * step)
    return steps


def adam(
    gradients: Sequence[Array],
    rates: Sequence[float],
    *,
    squares: Sequence[Array] | None = None,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-8,
    epsilon_hat: bool = False,
    rounded_betas: bool = False,
    corrected: bool = True,
    amsgrad: bool = False,
    looked_up: Sequence[Array] | None = None,
) -> list[Array]:
    """Adam (Kingma and Ba 2015, algorithm 1).

    Args:
        gradients: of consecutive steps, each row's look-ups summed.
        rates: the learning rate of each.
        squares: the sums of the squares of each row's look-ups, which v takes instead of the gradients' squares (Keras
            on TensorFlow, keras/src/optimizers/adam.py with `IndexedSlices`).
        beta_1: of the mean m of the gradients.
        beta_2: of the mean v of their squares.
        epsilon: added to √v̂, after the bias correction (torch/optim/adam.py).
        epsilon_hat: add it to √v instead, before the correction (the paper's form before its section 2.1;
            keras/src/optimizers/adam.py and torch.optim.SparseAdam).
        rounded_betas: βᵗ of the bias correction is that of β in float32 (Keras on TensorFlow).
        corrected: with the bias correction (the original BERT's AdamWeightDecayOptimizer is without).
        amsgrad: divide by the largest v so far (Reddi et al. 2018); PyTorch and Keras take it before the correction.
        looked_up: where True, m, v and the weights change; the rest stays (torch.optim.SparseAdam, "lazy" Adam).
    """
    steps, m, v, largest = [], *(np.zeros_like(gradients[0]) for _ in range(3))
    power_1, power_2 = (float(np.float32(beta)) if rounded_betas else beta for beta in (beta_1, beta_2))
    for number, (gradient, rate) in enumerate(zip(gradients, rates, strict=True), start=1):
        where = True if looked_up is None else looked_up[number - 1]
        square = gradient**2 if squares is None else squares[number - 1]
        m = np.where(where, beta_1 * m + (1 - beta_1) * gradient, m)
        v = np.where(where, beta_2 * v + (1 - beta_2) * square, v)
        largest = np.maximum(largest, v) if amsgrad else v
        correction_1, correction_2 = (1 - power_1**number, 1 - power_2**number) if corrected else (1.0, 1.0)
        if epsilon_hat:
            step = rate * np.sqrt(correction_2) / correction_1 * m / (np.sqrt(largest) + epsilon)
        else:
            step = rate / correction_1 * m / (np.sqrt(largest / correction_2) + epsilon)
        steps.append(np.where(where, step, 0.0))
    return steps


def rmsprop(
    gradients: Sequence[Array],
    rates: Sequence[float],
    *,
    squares: Sequence[Array] | None = None,
    rho: float = 0.99,
    epsilon: float = 1e-8,
    epsilon_inside: bool = False,
    momentum: float = 0.0,
    centered: bool = False,
    initial: float = 0.0,
) -> list[Array]:
    """RMSprop (Hinton, lecture 6e; centered: Graves 2013).

    Args:
        gradients: of consecutive steps.
        rates: the learning rate of each.
        squares: as for `adam`.
        rho: of the mean of the squares (PyTorch's `alpha`).
        epsilon: added to the root (torch/optim/rmsprop.py).
        epsilon_inside: add it under the root (keras/src/optimizers/rmsprop.py).
        momentum: of the steps.
        centered: take the square of the gradients' mean off the mean of their squares.
        initial: the mean's first value (1 in TensorFlow 1's RMSPropOptimizer).
    """
    steps, mean, step = [], *(np.zeros_like(gradients[0]) for _ in range(2))
    square_mean = np.full_like(mean, initial)
    for number, (gradient, rate) in enumerate(zip(gradients, rates, strict=True)):
        square_mean = rho * square_mean + (1 - rho) * (gradient**2 if squares is None else squares[number])
        mean = rho * mean + (1 - rho) * gradient
        variance = square_mean - mean**2 if centered else square_mean
        root = np.sqrt(variance + epsilon) if epsilon_inside else np.sqrt(variance) + epsilon
        step = momentum * step + rate * gradient / root
        steps.append(step)
    return steps


def adagrad(
    gradients: Sequence[Array],
    rates: Sequence[float],
    *,
    squares: Sequence[Array] | None = None,
    epsilon: float = 1e-10,
    epsilon_inside: bool = False,
    initial: float = 0.0,
) -> list[Array]:
    """Adagrad (Duchi et al. 2011).

    Args:
        gradients: of consecutive steps.
        rates: the learning rate of each.
        squares: as for `adam`.
        epsilon: added to the root (torch/optim/adagrad.py).
        epsilon_inside: add it under the root (keras/src/optimizers/adagrad.py).
        initial: the sum's first value: 0 in PyTorch, 0.1 in Keras.
    """
    steps, total = [], np.full_like(gradients[0], initial)
    for number, (gradient, rate) in enumerate(zip(gradients, rates, strict=True)):
        total = total + (gradient**2 if squares is None else squares[number])
        root = np.sqrt(total + epsilon) if epsilon_inside else np.sqrt(total) + epsilon
        steps.append(rate * gradient / root)
    return steps
