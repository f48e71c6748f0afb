"""List the studies with their verdicts, and write the table of these to the page that has a place for it.

    python -m studies

Claim, number of seeds, verdict and what it rests on are those of `studies/NAME/result.json`; nothing is computed.
"""

from textwrap import fill, shorten

from experiments import pages
from experiments.verdicts import results, verdict_of, verdicts_table

_WIDTH = 120


def main() -> None:
    """Print one entry a study."""
    every = results()
    for row in every:
        seeds = f"{row['seeds']} seed{'s' if row['seeds'] > 1 else ''}"
        print(f"{row['id']} ({seeds}): {verdict_of(row)}")
        for said in (shorten(row["claim"], 2 * _WIDTH), f"because: {shorten(row['because'], 4 * _WIDTH)}"):
            print(fill(said, _WIDTH, initial_indent="  ", subsequent_indent="    "))
    pages.fill("verdicts", verdicts_table(every))


if __name__ == "__main__":
    main()
