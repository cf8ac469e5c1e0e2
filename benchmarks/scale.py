"""How much is measured: all of it, what fits into two minutes, or just enough to see that it works."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """The sizes of all measurements."""

    rounds: int
    """How often each is repeated."""
    users: int
    """Of the simulated ratings that are trained on; with 18.4 ratings each, and a book for each 5.34."""
    embedding_dims: list[int]
    batch_sizes: list[int]
    max_rows: int
    """Rows of a training measurement, at most; an epoch's cost is the sum of its steps, so that a part will do."""
    max_steps: int
    """Steps of a training measurement at most."""
    process_rounds: int
    """How often whole processes are repeated."""
    table_users: list[int]
    """Users of each table that is prepared and split."""
    epoch_rows: list[int]
    """Ratings of each whole epoch that is trained."""
    peers_users: int
    """Users of the ratings that the peers are fitted to."""
    product_size: int
    """Of the square matrices whose product shows the arithmetic's speed."""


SCALES = {
    "full": Scale(
        rounds=5,
        users=53_424,
        embedding_dims=[5, 32],
        batch_sizes=[128, 1024, 8192],
        max_rows=1 << 17,
        max_steps=256,
        process_rounds=3,
        table_users=[54_400, 326_400, 1_360_000],
        epoch_rows=[1_000_000, 25_000_000],
        peers_users=53_424,
        product_size=2048,
    ),
    "quick": Scale(
        rounds=3,
        users=53_424,
        embedding_dims=[5],
        batch_sizes=[128, 1024],
        max_rows=1 << 15,
        max_steps=96,
        process_rounds=1,
        table_users=[54_400],
        epoch_rows=[100_000, 400_000],
        peers_users=5_342,
        product_size=1024,
    ),
    "tiny": Scale(
        rounds=1,
        users=534,
        embedding_dims=[2],
        batch_sizes=[128],
        max_rows=512,
        max_steps=4,
        process_rounds=1,
        table_users=[534],
        epoch_rows=[1000, 2000],
        peers_users=534,
        product_size=64,
    ),
}
