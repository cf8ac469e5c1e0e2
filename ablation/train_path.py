"""PyTorch on its path from its own conventions to Keras's, the one with the largest effect switched first."""

import argparse
from pathlib import Path

from ablation.curves import read_curves
from ablation.effects import rank_conventions
from ablation.plan import plan_path
from ablation.runs import add_arguments, train_kinds
from stages.program.process import run_stage


def main() -> None:
    """Run the stage: arguments, read, do, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--alone", type=Path, required=True, help="PyTorch's curves with each convention switched alone"
    )
    add_arguments(parser)
    arguments = parser.parse_args()
    order = rank_conventions(read_curves(arguments.alone))
    train_kinds(plan_path(order), arguments)


if __name__ == "__main__":
    run_stage(main)
