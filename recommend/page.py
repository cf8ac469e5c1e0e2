"""A page about one reader: one file that needs no network, with every text from elsewhere escaped."""

from html import escape

import numpy as np

from recommend.library import Library
from recommend.lists import Books
from recommend.network import NAMES, Network
from recommend.readers import Reader

BEST = 10
"""How many of the reader's own books the page shows."""

STYLE = """
:root { color-scheme: light dark; --ink: #1b1b1f; --soft: #63636b; --line: #e3e3e8; --paper: #fff; --bar: #f0f0f3;
  --pytorch: #d55e00; --keras: #0072b2; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #ececf0; --soft: #a0a0aa; --line: #34343b; --paper: #17171a; --bar: #26262b; --keras: #3d9bd6; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem; max-width: 68rem; background: var(--paper); color: var(--ink);
  font: 16px/1.45 system-ui, sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .3rem; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 0; }
p { margin: .3rem 0 1.2rem; color: var(--soft); }
main { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 19rem), 1fr)); gap: 2rem; }
ol, ul { list-style: none; margin: 0; padding: 0; }
li { padding: .6rem 0; border-top: 1px solid var(--line); overflow-wrap: anywhere; }
li b { font-weight: 600; }
small { display: block; color: var(--soft); }
.bar { display: flex; align-items: center; gap: .6rem; font-variant-numeric: tabular-nums; }
.bar i { flex: 1; height: .5rem; border-radius: .25rem; background: var(--bar); overflow: hidden; }
.bar i::before { content: ""; display: block; width: var(--part); height: 100%;
  background: var(--colour, var(--soft)); }
.both b::after { content: "both"; margin-left: .5rem; padding: .05rem .45rem; border-radius: 1rem; font-size: .75rem;
  background: var(--ink); color: var(--paper); vertical-align: .1em; }
"""


def make_page(library: Library, reader: Reader, lists: list[tuple[Network, Books]], scale: list[float]) -> str:
    """The page as HTML: the reader's own best-rated books, and a list from each network.

    Args:
        library: what the books are called.
        reader: whom it is about.
        lists: from each network, beside each other; a book that is in all of them is marked.
        scale: the lowest and the highest rating, from which to which bars go.
    """

    def item(book: int, stars: float, detail: str, kind: str = "") -> str:
        title = library.titles.get(book)
        name, authors = (title.title, title.authors) if title else (library.name(book), "")
        part = float(np.clip((stars - scale[0]) / (scale[1] - scale[0]), 0, 1))
        return (
            f'<li class="{kind}"><b>{escape(name)}</b><small>{escape(authors)}</small>'
            f'<div class="bar"><i style="--part:{part:.1%}"></i>{detail}</div></li>'
        )

    agreed = set.intersection(*(set(books.numbers.tolist()) for _, books in lists))
    best = np.lexsort((reader.books, -reader.stars))[:BEST]
    columns = [
        f"<section><h2>Rated best</h2><p>by {escape(reader.name)}, of {len(reader.books):,} ratings</p><ul>"
        + "".join(item(int(reader.books[row]), reader.stars[row], f"{reader.stars[row]:g}") for row in best)
        + "</ul></section>"
    ]
    for network, books in lists:
        rows = zip(books.numbers.tolist(), books.scores.tolist(), strict=True)
        columns.append(
            f'<section style="--colour:var(--{network.key})"><h2>{NAMES[network.key]}</h2>'
            f"<p>validation loss {network.val_loss:.4f}</p><ol>"
            + "".join(
                item(
                    book,
                    stars,
                    f"{stars:.2f}<small>{library.counts[book]:,} ratings</small>",
                    "both" * (book in agreed),
                )
                for book, stars in rows
            )
            + "</ol></section>"
        )
    heading = f"Books for {escape(reader.name)}"
    return (
        '<!DOCTYPE html>\n<html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{heading}</title><style>{STYLE}</style>\n<h1>{heading}</h1>"
        f"<p>The books not yet rated that each network predicts most stars for, {scale[0]:g} to {scale[1]:g}; "
        f"{len(agreed)} are on both lists. Beside the stars: how many ratings the network saw of the book.</p>\n"
        f"<main>{''.join(columns)}</main></html>\n"
    )
