"""What PyTorch and Keras do differently unless told otherwise, and how either follows the other.

| convention       | PyTorch 2.13                          | Keras 3.15 on TensorFlow 2.21                           |
|------------------|---------------------------------------|---------------------------------------------------------|
| `embedding_init` | N(0, 1)                               | U(-0.05, 0.05)                                          |
| `dense_init`     | U(±1/sqrt(fan_in))                    | Glorot uniform, U(±sqrt(6/(fan_in + fan_out)))          |
| `bias_init`      | U(±1/sqrt(fan_in))                    | 0                                                       |
| `adam_epsilon`   | 1e-8, added to sqrt(v̂)                | 1e-7, added to sqrt(v), before the bias correction      |
| `adam_betas`     | βᵗ of β in float64                    | βᵗ of β rounded to float32                              |
| `repeated_rows`  | a row's gradients are summed first,   | each look-up's gradient is squared, the squares are     |
|                  | the sum is squared                    | summed                                                  |

Sources, PyTorch: torch/nn/modules/sparse.py (`Embedding.reset_parameters`), torch/nn/modules/linear.py
(`Linear.reset_parameters`: kaiming_uniform_ with a = sqrt(5) is U(±1/sqrt(fan_in))), torch/optim/adam.py.
Sources, Keras: keras/src/layers/core/embedding.py and keras/src/initializers/random_initializers.py ("uniform" is
`RandomUniform`, U(-0.05, 0.05)), keras/src/layers/core/dense.py ("glorot_uniform", "zeros"),
keras/src/optimizers/adam.py.
Adam: Kingma and Ba 2015; Keras's ε is the "epsilon hat" of the formulation just before that paper's section 2.1.

`weights` draws the initial weights of either convention in NumPy, the same bytes for both frameworks. `torch_adam` and
`keras_adam` are Adam in each framework, following any mixture of the last three. Those last three are why: where a
framework's own Adam already follows the conventions asked for, the trainers use that one.
"""

from dataclasses import dataclass
from typing import Literal

from stages.program.params import Conventions, Precision

Side = Literal["torch", "keras"]
Program = Literal["pytorch", "keras-tensorflow", "keras-torch"]


@dataclass(frozen=True)
class AdamConventions:
    """Whose way each part of Adam follows."""

    epsilon: Side
    betas: Side
    repeated_rows: Side


KERAS_PROGRAMS: dict[str, Program] = {"tensorflow": "keras-tensorflow", "torch": "keras-torch"}
"""By Keras's backend."""


def own_adam(program: Program, precision: Precision) -> AdamConventions:
    """What the program's own Adam does."""
    match program:
        case "pytorch":
            return AdamConventions(epsilon="torch", betas="torch", repeated_rows="torch")
        case "keras-tensorflow":
            return AdamConventions(epsilon="keras", betas="keras", repeated_rows="keras")
        case "keras-torch":
            # Keras's formula on PyTorch's tensors: gradients come summed, and a Python float becomes float64 exactly.
            betas: Side = "torch" if precision == "float64" else "keras"
            return AdamConventions(epsilon="keras", betas=betas, repeated_rows="torch")


def resolve_adam(conventions: Conventions, program: Program, precision: Precision) -> AdamConventions:
    """Whose way the program's Adam has to follow: its own where the convention is `native`."""
    own = own_adam(program, precision)

    def side(convention: Literal["native", "torch", "keras"], native: Side) -> Side:
        return native if convention == "native" else convention

    return AdamConventions(
        epsilon=side(conventions.adam_epsilon, own.epsilon),
        betas=side(conventions.adam_betas, own.betas),
        repeated_rows=side(conventions.repeated_rows, own.repeated_rows),
    )
