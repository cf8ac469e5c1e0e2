"""Walks two records in the order in which a difference can arise, and says where they part first."""

from dataclasses import dataclass
from typing import Literal

from divergence import conventions
from divergence.comparison import CHECKPOINTS, TOLERANCE, Comparison, Finding

Verdict = Literal["agree", "own", "chance", "inherited", "-"]

LASTING = ("output", "loss", "gradients", "after")
"""Checkpoints where a convention shows again at each step; weights and batches are taken up once."""


@dataclass(frozen=True)
class Row:
    """What became of one checkpoint of one step."""

    step: int
    checkpoint: str
    compared: int
    differ: int
    largest: float
    """The largest difference, of the largest number in its array; of the step where it is `after`."""
    verdict: Verdict


@dataclass(frozen=True)
class Walk:
    """All that comparing two records says."""

    rows: list[Row]
    findings: list[Finding]
    """Differences of their own, in the order in which they arise: at the first one the programs part."""
    common_step: str | None
    """The formula by which both programs step, where there is one."""


def walk(comparison: Comparison) -> Walk:
    """Compare two records.

    A difference is the programs' own where what leads to it agrees, or where each program by itself shows another
    convention. First weights and rows that only look like other draws are chance. The rest is inherited.
    """
    explained = conventions.step_conventions(comparison)
    common = conventions.common_steps(comparison, explained)
    findings = [
        *conventions.name_shapes(comparison),
        *conventions.name_weights(comparison),
        *conventions.name_batch(comparison),
        *conventions.name_layers(comparison),
        *conventions.name_loss(comparison),
        *conventions.name_steps(comparison, explained),
    ]
    rows: list[Row] = []
    weights_differ = False
    for step in range(1, min(len(comparison.one.steps), len(comparison.other.steps)) + 1):
        upstream = weights_differ
        for checkpoint in [*CHECKPOINTS][1:]:
            differences = comparison.differences(step, checkpoint)
            limit = TOLERANCE[comparison.precision][checkpoint]
            differing = {name for name, value in differences.items() if not value <= limit}
            # Adam may turn a step round where a gradient is nothing but round-off: the formula is what counts.
            unexplained = differing - common.keys() if checkpoint == "after" else differing
            verdict: Verdict
            if not differences:
                verdict = "-"
            elif any(
                f.checkpoint == checkpoint and f.step <= step for f in findings if step == 1 or checkpoint in LASTING
            ):
                verdict = "own"
            elif not unexplained:
                verdict = "agree"
            elif checkpoint == "batch" or (step, checkpoint) == (1, "weights"):
                verdict = "chance"
            elif upstream:
                verdict = "inherited"
            elif checkpoint == "output" and conventions.drops_in_both(comparison):
                verdict = "chance"
            else:
                verdict = "own"
                findings += conventions.name_difference(comparison, step, checkpoint, sorted(unexplained))
            largest = max(differences.values(), default=0.0)
            rows.append(Row(step, checkpoint, len(differences), len(differing), largest, verdict))
            upstream |= bool(differing)
        weights_differ |= upstream
    order = [*CHECKPOINTS]
    findings.sort(key=lambda finding: (finding.step, order.index(finding.checkpoint)))
    steps_agree = not any(finding.checkpoint == "after" for finding in findings)
    return Walk(rows, findings, conventions.describe_common_step(comparison, common) if steps_agree else None)
