"""PyTorch on its path from its own conventions to Keras's, the one with the largest effect switched first."""

from pathlib import Path

from ablation.curves import read_curves
from ablation.estimates import rank_conventions
from ablation.plan import plan_path
from ablation.runs import AblationParams, train_kinds
from stages.program.params import Params
from stages.program.process import run_stage


def main(
    alone: Path, params: Params, ablation_params: AblationParams, train: Path, validation: Path, curves: Path
) -> None:
    """Run the stage."""
    order = rank_conventions(read_curves(alone))
    train_kinds(plan_path(order), params, ablation_params.ablation, train, validation, curves)


if __name__ == "__main__":
    run_stage(main)
