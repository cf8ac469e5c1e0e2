"""The trainings that take the gap apart.

Each one is a framework (PyTorch or Keras), a choice of conventions, and a seed. All but those named `native` start from
weights drawn in NumPy, so that two trainings of one seed differ in nothing but the conventions between them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from stages.program.params import Convention, Conventions
from stages.training.conventions import Side

Framework = Literal["pytorch", "keras"]

OWN_SIDE: dict[Framework, Side] = {"pytorch": "torch", "keras": "keras"}
OTHER_SIDE: dict[Framework, Side] = {"pytorch": "keras", "keras": "torch"}

CONVENTIONS = tuple(Conventions.model_fields)
"""The names of all conventions."""


@dataclass(frozen=True)
class Kind:
    """What a training is for: its name, its framework and its conventions."""

    name: str
    framework: Framework
    conventions: Mapping[str, Convention]
    """By name, as params.yaml has them."""


def plan_alone(framework: Framework) -> list[Kind]:
    """The framework as it is, with all conventions its own, with all the other's, and with each one switched alone."""
    own, other = OWN_SIDE[framework], OTHER_SIDE[framework]
    return [
        Kind("native", framework, dict.fromkeys(CONVENTIONS, "native")),
        Kind("own", framework, switch(own, other, [])),
        Kind("other", framework, switch(own, other, CONVENTIONS)),
        *(Kind(f"alone:{name}", framework, switch(own, other, [name])) for name in CONVENTIONS),
    ]


def plan_path(order: Sequence[str]) -> list[Kind]:
    """PyTorch on its path to Keras's conventions: one more switched at each step, the two ends left out."""
    return [
        Kind(f"path:{name}", "pytorch", switch("torch", "keras", order[:position]))
        for position, name in enumerate(order[:-1], start=1)
    ]


def switch(base: Side, switched: Side, names: Iterable[str]) -> Mapping[str, Convention]:
    """All conventions one side's, but those named the other's."""
    return dict.fromkeys(CONVENTIONS, base) | dict.fromkeys(names, switched)
