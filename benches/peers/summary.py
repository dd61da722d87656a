"""Ratios, medians and spreads, and the table on the terminal.

A ratio is formed within a repetition, so that a machine that changes its speed between repetitions changes both of its
parts. What is shown of the ratios is their median, and the least and the greatest.
"""

from collections import defaultdict
from dataclasses import dataclass
from statistics import median

from cases import ABOVE, KINDS

FLOOR, BUN = "floor", "bun"


@dataclass(frozen=True)
class Spread:
    median: float
    least: float
    greatest: float
    count: int

    @staticmethod
    def of(values):
        return Spread(median(values), min(values), max(values), len(values)) if values else None


class Summary:
    """All runs, by case, server and repetition."""

    def __init__(self, runs):
        self.runs = runs
        self.by_place = defaultdict(dict)
        for run in runs:
            self.by_place[run["case"], run["server"]][run["repetition"]] = run

    def servers(self, case, servers):
        """The servers that there is anything of."""
        return [server for server in servers if (case.name, server.name) in self.by_place]

    def values(self, case, server, figure):
        """A figure's values as they were measured, by repetition."""
        runs = self.by_place[case, server]
        return {number: run["figures"][figure] for number, run in runs.items() if figure in run["figures"]}

    def ratios(self, case, server, figure, base=FLOOR, base_figure=None):
        """A figure's ratios to that of another server in the same repetition."""
        bases = self.values(case, base, base_figure or figure)
        values = self.values(case, server, figure)
        return Spread.of([value / bases[number] for number, value in values.items() if bases.get(number)])

    def spread(self, case, server, figure):
        """What is shown of a figure of a case: ratios, or for memory the values."""
        if figure.is_ratio:
            return self.ratios(case.name, server.name, figure.name)
        if figure is ABOVE:
            return self.above(case, server)
        return Spread.of(list(self.values(case.name, server.name, figure.name).values()))

    def above(self, case, server):
        """Bytes of a connection above those of a plain one in the same repetition."""
        plain = self.values(case.plain, server.plain or server.name, "bytes")
        values = self.values(case.name, server.name, "bytes")
        return Spread.of([value - plain[number] for number, value in values.items() if number in plain])

    def notes(self, case, server):
        """What went wrong, and in how many repetitions."""
        runs = self.by_place[case.name, server.name].values()
        noted = [run["notes"] for run in runs if run["notes"]]
        if not noted:
            return None
        return f"in {len(noted)} of {len(runs)} repetitions, such as: {'; '.join(noted[0])}"

    def as_json(self, cases, servers):
        rows = []
        for case in cases:
            for server in self.servers(case, servers):
                for figure in case.figures:
                    spread = self.spread(case, server, figure)
                    row = {"case": case.name, "server": server.name, "figure": figure.name}
                    row["unit"] = "ratio to the floor" if figure.is_ratio else "bytes"
                    rows.append({**row, **(vars(spread) if spread else {}), "notes": self.notes(case, server)})
        return rows


def number_text(value, figure):
    """A figure for people: three digits of a ratio, or bytes."""
    if not figure.is_ratio:
        return f"{value:,.0f} B"
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def spread_text(spread, figure):
    if spread is None:
        return "no figure"
    text = number_text(spread.median, figure)
    if spread.count > 1:
        text += f"  ({number_text(spread.least, figure)} to {number_text(spread.greatest, figure)})"
    return text


def print_table(summary, cases, servers):
    """The table on the terminal."""
    for kind, title in KINDS.items():
        of_kind = [case for case in cases if case.kind == kind]
        if not of_kind:
            continue
        print(f"\n{title}")
        for case in of_kind:
            for figure in case.figures:
                unit = "ratio to the floor" if figure.is_ratio else "median and spread"
                print(f"  {case.name}: {case.title}; {figure.title}, {unit}")
                for server in summary.servers(case, servers):
                    mark = " !" if summary.notes(case, server) else ""
                    text = spread_text(summary.spread(case, server, figure), figure)
                    print(f"    {server.title:<20} {text}{mark}")
            for server in summary.servers(case, servers):
                note = summary.notes(case, server)
                if note:
                    print(f"    ! {server.title}: {note}")
