"""One framework as it is, with each convention switched alone, and with all of them switched."""

import argparse

from ablation.plan import plan_alone
from ablation.runs import add_arguments, train_kinds
from stages.program.process import run_stage


def main() -> None:
    """Run the stage: arguments, read, do, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--framework", choices=["pytorch", "keras"], required=True)
    add_arguments(parser)
    arguments = parser.parse_args()
    train_kinds(plan_alone(arguments.framework), arguments)


if __name__ == "__main__":
    run_stage(main)
