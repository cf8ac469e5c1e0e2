"""The trainings that take the gap apart.

Each one is a program (PyTorch or Keras), a choice of conventions, and a seed. All but those named `native` start from
weights drawn in NumPy, so that two trainings of one seed differ in nothing but the conventions between them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from stages.common.conventions import Side
from stages.common.params import Convention, Conventions

Program = Literal["pytorch", "keras"]

OWN_SIDE: dict[Program, Side] = {"pytorch": "torch", "keras": "keras"}
OTHER_SIDE: dict[Program, Side] = {"pytorch": "keras", "keras": "torch"}

CONVENTIONS = tuple(Conventions.model_fields)
"""The names of all conventions."""


@dataclass(frozen=True)
class Kind:
    """What a training is for: its name, its program and its conventions."""

    name: str
    program: Program
    conventions: tuple[Convention, ...]
    """In the order of `CONVENTIONS`."""

    def settings(self) -> dict[str, Convention]:
        """The conventions by name, as params.yaml has them."""
        return dict(zip(CONVENTIONS, self.conventions, strict=True))


def plan_alone(program: Program) -> list[Kind]:
    """The program as it is, with all conventions its own, with all the other's, and with each one switched alone."""
    own, other = OWN_SIDE[program], OTHER_SIDE[program]
    return [
        Kind("native", program, tuple("native" for _ in CONVENTIONS)),
        Kind("own", program, switch(own, other, [])),
        Kind("other", program, switch(own, other, CONVENTIONS)),
        *(Kind(f"alone:{name}", program, switch(own, other, [name])) for name in CONVENTIONS),
    ]


def plan_path(order: Sequence[str]) -> list[Kind]:
    """PyTorch on its way to Keras's conventions: one more switched at each step, the two ends left out."""
    return [
        Kind(f"path:{name}", "pytorch", switch("torch", "keras", order[:position]))
        for position, name in enumerate(order[:-1], start=1)
    ]


def switch(base: Side, switched: Side, names: Iterable[str]) -> tuple[Convention, ...]:
    """All conventions one side's, but those named the other's."""
    chosen = set(names)
    return tuple(switched if name in chosen else base for name in CONVENTIONS)
