"""How fast `recommend` makes lists: the share of the speed of a product of two large matrices that goes into them.

Processor time of all threads, in turns: other people's work moves a share less than a time.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np

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
        for name, make in contenders.items():
            make()
            seconds = [(processor_seconds(make), processor_seconds(lambda: square @ square)) for _ in range(ROUNDS)]
            shares = sorted(flops / taken / (2 * SIDE**3 / product) for taken, product in seconds)
            speed = pairs / median(taken for taken, _ in seconds) / 1e6
            print(
                f"{key:<8} {name:<11} {speed:5.0f} million pairs a second and thread, {median(shares):.0%} "
                f"({shares[0]:.0%} to {shares[-1]:.0%}) of the speed of a matrix product"
            )


def processor_seconds(function: Callable[[], object]) -> float:
    """Of this process, all threads together."""
    start = time.process_time()
    function()
    return time.process_time() - start


if __name__ == "__main__":
    run_program(main)
