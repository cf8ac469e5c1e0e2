"""Walks two records in the order in which a difference can arise, and says where they part first."""

from dataclasses import dataclass
from typing import Literal

from divergence import findings as find
from divergence.comparison import LABELS, Comparison, Finding
from divergence.steps import describe_mixtures

Verdict = Literal["agree", "own", "chance", "inherited", "-"]

DROPOUT = "Dropout is on in both: set its rate to 0 in both to compare what comes after it"


@dataclass(frozen=True)
class Row:
    """What became of one checkpoint of one step."""

    step: int
    checkpoint: str
    compared: int
    differ: int
    largest: float
    """The largest difference, as `Comparison.differences` has it."""
    verdict: Verdict


@dataclass(frozen=True)
class Walk:
    """All that comparing two records says."""

    rows: list[Row]
    findings: list[Finding]
    """Differences of their own, in the order in which they arise: at the first one the programs part."""
    common_step: str | None
    """The formula by which both programs step, where there is one."""
    remarks: list[str]
    """What isn't a difference, or can't be told."""

    @property
    def has_setting(self) -> bool:
        """Whether any difference is one that a setting changes."""
        return any(finding.has_setting for finding in self.findings)


def walk(comparison: Comparison) -> Walk:
    """Compare two records.

    A difference is the programs' own where what leads to it agrees, or where each program by itself shows another
    convention. First weights and rows that only look like other draws are chance. The rest is inherited.
    """
    claims = [*find.collect_claims(comparison)]
    dropouts = [claim for claim in claims if claim.what == "dropout"]
    both_drop = any(claim.one and claim.other and "off" not in claim.one | claim.other for claim in dropouts)
    claims, mixtures, joined = find.join_penalty(comparison, claims, find.explain_both(comparison))
    explained = {label for label, (one, other) in mixtures.items() if one & other}
    findings = [
        *find.unpaired_weights(comparison),
        *find.earlier_parting(comparison, claims),
        *find.disagreements(claims),
        *find.stepping(comparison, mixtures),
    ]
    remarks = [*joined, *find.untold(claims), *find.stated_alone(comparison, claims)]
    both_change_weights = any(find.OUTSIDE in claim.one and find.OUTSIDE in claim.other for claim in claims)
    has_one_loss = any(claim.checkpoint == "loss" and claim.one.keys() & claim.other.keys() for claim in claims)
    rows: list[Row] = []
    weights_differ = False
    for step in comparison.steps:
        upstream = weights_differ
        for checkpoint in [*LABELS][1:]:
            differences = comparison.differences(step, checkpoint)
            differing = [name for name, value in differences.items() if not value <= comparison.tolerance(checkpoint)]
            # Adam may turn a step round where a gradient is nothing but round-off: the formula is what counts.
            unexplained = [name for name in differing if checkpoint != "after" or name not in explained]
            since = step if checkpoint == "weights" else 1  # a convention shows again; first weights are drawn once
            verdict: Verdict
            if not differences:
                verdict = "-"
            elif any(f.checkpoint == checkpoint and since <= f.step <= step for f in findings):
                verdict = "own"
            elif not unexplained:
                verdict = "agree"
            elif checkpoint == "batch" or (step, checkpoint) == (1, "weights"):
                verdict = "chance"
            elif upstream or (checkpoint == "weights" and not both_change_weights):
                verdict = "inherited"
            elif checkpoint == "loss" and (joined or has_one_loss):
                verdict = "agree"
            elif checkpoint == "output" and both_drop:
                verdict = "chance"
                remarks.append(DROPOUT)
            elif checkpoint == "output" and (remark := find.transformed_output(comparison, step, claims)):
                verdict, differing = "agree", []
                remarks.append(remark)
            elif checkpoint == "gradients" and (remark := find.near_gradients(comparison, step, unexplained)):
                verdict = "agree"
                remarks.append(remark)
            else:
                verdict = "own"
                findings += find.difference(comparison, step, checkpoint, unexplained)
            largest = max(differences.values(), default=0.0)
            rows.append(Row(step, checkpoint, len(differences), len(differing), largest, verdict))
            upstream |= bool(differing) or verdict == "own"
        weights_differ |= upstream
    remarks += find.unknown_in_both(claims, mixtures, {row.checkpoint for row in rows if row.differ})
    findings.sort(key=lambda finding: (finding.step, [*LABELS].index(finding.checkpoint)))
    steps_agree = not any(finding.checkpoint == "after" for finding in findings)
    common_step = _describe_common_step(comparison, mixtures) if steps_agree else None
    return Walk(rows, findings, common_step, [*dict.fromkeys(remarks)])


def _describe_common_step(comparison: Comparison, mixtures: find.Mixtures) -> str | None:
    """The formula that explains all weights' steps in both programs, if one does."""
    shared = set.intersection(*(one & other for one, other in mixtures.values())) if mixtures else set()
    looks_up = any(record.tables for record in comparison.records)
    return describe_mixtures(shared, comparison.precision, looks_up) if shared else None
