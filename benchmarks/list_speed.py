"""How fast `recommend` makes lists: the share of the speed of a product of two large matrices that goes into them.

Processor time of all threads, in turns: other people's work moves a share less than a time.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.measure import ratio, take_turns
from recommend.library import read_library
from recommend.lists import MIN_RATINGS, list_books
from recommend.network import WEIGHTS, read_network
from stages.program.process import run_program

READERS, SIDE, ROUNDS = 1024, 2000, 7


def main() -> None:
    """Print for each network how many predictions a second a thread makes, and the share, alone and with the lists."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.list_speed", description=__doc__)
    parser.add_argument("--project", type=Path, default=Path(), metavar="FOLDER", help="default: this folder")
    asked = parser.parse_args()
    library = read_library(asked.project)
    readers, left_out = [library.reader(user) for user in range(READERS)], library.counts < MIN_RATINGS
    square = np.ones((SIDE, SIDE), np.float32)
    for key in WEIGHTS:
        network = read_network(key, asked.project, library)
        pairs = READERS * len(library.book_ids)
        flops = pairs * sum(2 * kernel.size for kernel in network.kernels[1:])
        contenders: dict[str, Callable[[], object]] = {
            "predictions": lambda: [network.predict(network.user_vectors[reader.user]) for reader in readers],  # noqa: B023
            "lists": lambda: list_books(library, network, readers, left_out, 10, why=False),  # noqa: B023
        }
        seconds = take_turns({**contenders, "product": lambda: square @ square}, ROUNDS)
        for name in contenders:
            speed = pairs / median(seconds[name]) / 1e6
            share = ratio([flops / (2 * SIDE**3) * second for second in seconds["product"]], seconds[name])
            print(
                f"{key:<8} {name:<11} {speed:5.0f} million pairs a second and thread, {share.median:.0%} "
                f"({share.low:.0%} to {share.high:.0%}) of the speed of a matrix product"
            )


if __name__ == "__main__":
    run_program(main)
