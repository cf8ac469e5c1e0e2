"""A page about one reader: one file that needs no network, with every text from elsewhere escaped."""

from html import escape
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
import pyarrow as pa

from recommend.library import Library, Reader
from recommend.lists import Books, tabulate
from recommend.network import NAMES, Network

BEST = 10
"""How many of the reader's own books the page shows."""


def make_page(library: Library, reader: Reader, lists: list[tuple[Network, pa.Table]], scale: list[float]) -> str:
    """The page as HTML: the reader's best-rated books, and each network's list; what is on all of these is marked.

    Bars go from the lowest to the highest rating of the scale.
    """
    agreed = set.intersection(*({*table["book"].to_pylist()} for _, table in lists))

    def show(row: dict[str, Any], value: str, kind: str = "") -> str:
        title, authors = row.get("title") or f"book {row['book']}", row.get("authors") or ""
        part = np.clip((row["stars"] - scale[0]) / (scale[1] - scale[0]), 0, 1)
        return (
            f'<li class="{kind}"><b>{escape(title)}</b><small>{escape(authors)}</small>'
            f'<div class="bar"><i style="--part:{part:.1%}"></i>{value}</div></li>\n'
        )

    best = np.lexsort((reader.books, -reader.stars))[:BEST]
    rated = tabulate(library, [Books(reader.books[best], reader.stars[best])], "stars").to_pylist()
    columns = [
        '<section style="--colour:var(--soft)"><h2>Rated best</h2>'
        f"<p>by {escape(reader.name)}, of {len(reader.books):,} ratings</p>"
        f"<ol>{''.join(show(row, format(row['stars'], 'g')) for row in rated)}</ol></section>"
    ]
    for network, table in lists:
        rows = (
            show(row, f"{row['stars']:.2f}<small>{row['ratings']:,} ratings</small>", "both" * (row["book"] in agreed))
            for row in table.to_pylist()
        )
        columns.append(
            f'<section style="--colour:var(--{network.key})"><h2>{NAMES[network.key]}</h2>'
            f"<p>validation loss {network.val_loss:.4f}</p><ol>{''.join(rows)}</ol></section>"
        )
    template = Template(Path(__file__).with_name("page.html").read_text(encoding="utf-8"))
    lowest, highest = (f"{end:g}" for end in scale)
    heading = f"Books for {escape(reader.name)}"
    return template.substitute(
        heading=heading, lowest=lowest, highest=highest, agreed=len(agreed), columns="".join(columns)
    )
