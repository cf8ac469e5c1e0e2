"""One framework as it is, with each convention switched alone, and with all of them switched."""

from pathlib import Path

from ablation.plan import Framework, plan_alone
from ablation.runs import train_kinds
from stages.program.process import run_stage


def main(
    framework: Framework, params: Path, ablation_params: Path, train: Path, validation: Path, curves: Path
) -> None:
    """Run the stage."""
    train_kinds(plan_alone(framework), params, ablation_params, train, validation, curves)


if __name__ == "__main__":
    run_stage(main)
