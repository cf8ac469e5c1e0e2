"""One framework as it is, with each convention switched alone, and with all of them switched."""

from pathlib import Path

from ablation.plan import Framework, plan_alone
from ablation.runs import AblationParams, train_kinds
from stages.program.params import Params
from stages.program.process import run_stage


def main(
    framework: Framework, params: Params, ablation_params: AblationParams, train: Path, validation: Path, curves: Path
) -> None:
    """Run the stage."""
    train_kinds(plan_alone(framework), params, ablation_params.ablation, train, validation, curves)


if __name__ == "__main__":
    run_stage(main)
