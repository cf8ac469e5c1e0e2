"""Where two programs part: `python -m divergence one.npz other.npz`.

Compares the records of two training programs, prints where they part first, and which convention it is. The exit status
is 0 where no convention differs, or only such as no setting changes; 1 where one does; 2 where the records can't be
compared.
"""

import argparse
import os
import sys
import textwrap
import warnings
from pathlib import Path

from divergence.comparison import LABELS, Comparison, Finding
from divergence.pairing import read_mapping
from divergence.record import RecordError
from divergence.walk import Walk, walk

CHECKLIST = "docs/why-the-curves-differ.md#checklist"
FURTHER = (
    "What layers compute, such as an activation, shows only from equal weights and batches: to compare it, start both "
    "from one record's weights (start_from) and give both the same batches."
)
WIDTH = 80
EVIDENCE = 6
"""How many pieces of evidence to show of one difference."""


def main(arguments: list[str] | None = None) -> int:
    """Read, compare, print; the command line's arguments unless others are given."""
    parser = argparse.ArgumentParser("python -m divergence", description=__doc__)
    parser.add_argument("one", type=Path, help="a program's record: .npz or .safetensors")
    parser.add_argument("other", type=Path, help="the other program's")
    parser.add_argument("--mapping", type=Path, help='a JSON file: {"a weight of the one": "its name in the other", …}')
    given = parser.parse_args(arguments)
    warnings.simplefilter("ignore", RuntimeWarning)  # of numbers that aren't finite
    try:
        mapping = read_mapping(given.mapping) if given.mapping else None
        comparison = Comparison.read(given.one, given.other, mapping)
    except RecordError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    found = walk(comparison)
    try:
        print(f"here   {given.one}: {comparison.one.title}\nthere  {given.other}: {comparison.other.title}\n")
        print(describe(comparison, found), flush=True)
    except BrokenPipeError:  # its reader, as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1 if found.has_setting else 0


def describe(comparison: Comparison, found: Walk) -> str:
    """The table, where the programs part, and each difference of their own, within 80 columns."""
    lines = [f"{'step':>4}  {'checkpoint':<10}  {'compared':>8}  {'differ':>6}  {'largest':>8}  verdict"]
    for row in found.rows:
        largest, name = f"{row.largest:.1e}" if row.largest else "0", LABELS[row.checkpoint]
        largest = largest.replace("inf", "-")  # other shapes, or no numbers
        lines.append(f"{row.step:>4}  {name:<10}  {row.compared:>8}  {row.differ:>6}  {largest:>8}  {row.verdict}")
    if not found.findings:
        lines += ["", *_wrap(_describe_agreement(found))]
    else:
        first, *further = found.findings
        lines += ["", f"They part first at step {first.step}, {LABELS[first.checkpoint]}:", *_describe(first)]
        if further:
            lines += ["", "Further differences of their own, whatever came before:"]
            lines += [line for finding in further for line in _describe(finding)]
        lines += ["", f"What makes both the same: {CHECKLIST}"]
        if not found.has_setting and _list_chances(found):
            lines += ["", *_wrap(FURTHER)]
    if found.common_step:
        lines += ["", *_wrap(f"Both step by the same formula: {found.common_step}.")]
    lines += [line for remark in found.remarks for line in ["", *_wrap(f"{remark}.")]]
    return "\n".join(lines)


def _describe_agreement(found: Walk) -> str:
    chance = _list_chances(found)
    if not chance:
        return "No convention differs." if found.remarks else "They agree in all that was recorded."
    if chance == ["output"]:  # of dropout, which is remarked
        return "No convention differs before the dropout."
    return (
        f"No convention differs. By chance alone (other random draws, as from another seed) these do: "
        f"{', '.join(chance)}; the rest follows from them. {FURTHER}"
    )


def _list_chances(found: Walk) -> list[str]:
    """The checkpoints at which only random draws differ."""
    return [*dict.fromkeys(LABELS[row.checkpoint] for row in found.rows if row.verdict == "chance")]


def _describe(finding: Finding) -> list[str]:
    lines = ["", *_wrap(f"{LABELS[finding.checkpoint]}: {finding.what}", 2)]
    lines += _wrap(f"here   {finding.one}", 4, 11) + _wrap(f"there  {finding.other}", 4, 11)
    shown = finding.evidence if finding.checkpoint == "shapes" else finding.evidence[:EVIDENCE]
    return lines + [line for evidence in shown for line in _wrap(f"({evidence})", 4, 5)]


def _wrap(text: str, indent: int = 0, further: int | None = None) -> list[str]:
    hanging = " " * (indent if further is None else further)
    wrapper = textwrap.TextWrapper(WIDTH, " " * indent, hanging, break_on_hyphens=False)  # a minus is no hyphen
    return wrapper.wrap(text)


if __name__ == "__main__":
    sys.exit(main())
