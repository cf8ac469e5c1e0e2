"""A page about one reader: one file that needs no network, with every text from elsewhere escaped."""

from html import escape
from pathlib import Path
from string import Template

import numpy as np

from recommend.library import Library, Reader, Row
from recommend.lists import Books, as_rows
from recommend.network import NAMES, Network

BEST = 10
"""How many of the reader's own books the page shows."""


def make_page(library: Library, reader: Reader, lists: list[tuple[Network, list[Row]]], scale: list[float]) -> str:
    """The page as HTML: the reader's best-rated books, and each network's list; what is on all of these is marked.

    Bars go from the lowest to the highest rating of the scale.
    """
    agreed = set.intersection(*({row["book"] for row in rows} for _, rows in lists))

    def show(row: Row, value: str, kind: str = "") -> str:
        title, authors = row.get("title") or f"book {row['book']}", row.get("authors") or ""
        part = np.clip((row["stars"] - scale[0]) / (scale[1] - scale[0]), 0, 1)
        return (
            f'<li class="{kind}"><b>{escape(title)}</b><small>{escape(authors)}</small>'
            f'<div class="bar"><i style="--part:{part:.1%}"></i>{value}</div></li>\n'
        )

    best = np.lexsort((reader.books, -reader.stars))[:BEST]
    rated = as_rows(library, Books(reader.books[best], reader.stars[best]), "stars")
    columns = [
        '<section style="--colour:var(--soft)"><h2>Rated best</h2>'
        f"<p>by {escape(reader.name)}, of {len(reader.books):,} ratings</p>"
        f"<ol>{''.join(show(row, format(row['stars'], 'g')) for row in rated)}</ol></section>"
    ]
    for network, rows in lists:
        items = (
            show(row, f"{row['stars']:.2f}<small>{row['ratings']:,} ratings</small>", "both" * (row["book"] in agreed))
            for row in rows
        )
        columns.append(
            f'<section style="--colour:var(--{network.key})"><h2>{NAMES[network.key]}</h2>'
            f"<p>validation loss {network.val_loss:.4f}</p><ol>{''.join(items)}</ol></section>"
        )
    template = Template(Path(__file__).with_name("page.html").read_text(encoding="utf-8"))
    lowest, highest = (f"{end:g}" for end in scale)
    heading = f"Books for {escape(reader.name)}"
    return template.substitute(
        heading=heading, lowest=lowest, highest=highest, agreed=len(agreed), columns="".join(columns)
    )
