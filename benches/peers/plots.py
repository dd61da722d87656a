"""The plots, as SVG that is readable on light and on dark pages."""

import math
from html import escape

from summary import FLOOR, number_text

LABEL_WIDTH, BAR_WIDTH, VALUE_WIDTH = 128, 224, 68
PANEL_WIDTH = LABEL_WIDTH + BAR_WIDTH + VALUE_WIDTH
ROW_HEIGHT, BAR_HEIGHT = 19, 11
HEAD_HEIGHT, PANEL_GAP, MARGIN = 24, 22, 16
TITLE_HEIGHT = 50
#: Where bars of ratios are cut off, so that one does not make all others too small to compare.
RATIO_MAX = 5
#: Room for the line under the title.
WIDTH_MIN = 740
#: Of the latency's distribution, with the radius of their dots.
QUANTILES = {"p50": 5, "p90": 4, "p99": 4, "p999": 3, "max": 2}

STYLE = """
  text { font: 12px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #24292f; }
  .title { font-size: 15px; font-weight: 600; }
  .panel { font-weight: 600; }
  .quiet { fill: #656d76; }
  .own { font-weight: 600; }
  .bar { fill: #8c959f; }
  .floor { fill: #afb8c1; }
  .umbel { fill: #0969da; }
  .line { stroke: #8c959f; fill: none; }
  .grid { stroke: #d0d7de; fill: none; }
  .one { stroke: #656d76; stroke-dasharray: 3 3; }
  .whisker { stroke: #24292f; fill: none; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; }
    .quiet { fill: #9198a1; }
    .bar { fill: #6e7681; }
    .floor { fill: #484f58; }
    .umbel { fill: #4493f8; }
    .line { stroke: #6e7681; }
    .grid { stroke: #3d444d; }
    .one { stroke: #9198a1; }
    .whisker { stroke: #e6edf3; }
  }
"""


class Drawing:
    """SVG, piece by piece."""

    def __init__(self, title, subtitle, width):
        self.title, self.width, self.height = title, max(width, WIDTH_MIN), 0
        self.parts = []
        self.text(MARGIN, MARGIN + 10, title, "title")
        self.text(MARGIN, MARGIN + 28, subtitle, "quiet")

    def text(self, x, y, text, style="", anchor="start"):
        place = f'x="{x:.1f}" y="{y:.1f}"'
        self.parts.append(f'<text {place} class="{style}" text-anchor="{anchor}">{escape(text)}</text>')

    def line(self, x1, y1, x2, y2, style):
        self.parts.append(f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{style}"/>')

    def bar(self, x, y, width, style):
        size = f'width="{max(width, 0.5):.1f}" height="{BAR_HEIGHT}" rx="2"'
        self.parts.append(f'<rect x="{x:.1f}" y="{y:.1f}" {size} class="{style}"/>')

    def arrow(self, x, y, style):
        """The end of a bar that goes on."""
        self.parts.append(f'<path d="M{x + 1:.1f} {y - 5:.1f} l5 5 l-5 5 z" class="{style}"/>')

    def dot(self, x, y, radius, style):
        self.parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" class="{style}"/>')

    def svg(self):
        head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{self.width}" height="{self.height:.0f}"'
        head += f' viewBox="0 0 {self.width} {self.height:.0f}" role="img">'
        head += f"\n<title>{escape(self.title)}</title>\n<style>{STYLE}</style>"
        return "\n".join([head, *self.parts, "</svg>\n"])


def style_of(server):
    return "umbel" if server.name.startswith("umbel") else "floor" if server.name == FLOOR else "bar"


class Scale:
    """Values to places, linear from 0 or logarithmic between powers of ten."""

    def __init__(self, values, is_logarithmic):
        self.is_logarithmic = is_logarithmic
        if is_logarithmic:
            self.low = 10 ** math.floor(math.log10(max(min(values), 1e-3)))
            self.high = max(10 ** math.ceil(math.log10(max(*values, 1e-3))), self.low * 10)
        else:
            self.low, self.high = 0, min(max(*values, 1), RATIO_MAX)

    def place(self, value):
        if self.is_logarithmic:
            value = max(value, self.low)
            return BAR_WIDTH * math.log(value / self.low) / math.log(self.high / self.low)
        return BAR_WIDTH * min(value, self.high) / self.high

    def decades(self):
        value = self.low
        while value <= self.high * 1.001:
            yield value
            value *= 10


def decade_text(value):
    """A power of ten, in bytes."""
    for unit, name in ((1e6, "MB"), (1e3, "kB"), (1, "B")):
        if value >= unit:
            return f"{value / unit:,.0f} {name}"
    return f"{value:g} B"


def bar_panel(drawing, x, y, title, rows, figure):
    """Bars with whiskers from the least to the greatest: `rows` are servers and spreads."""
    scale = Scale([value for _, spread in rows for value in (spread.median, spread.greatest)], not figure.is_ratio)
    left, top, bottom = x + LABEL_WIDTH, y + HEAD_HEIGHT - 6, y + HEAD_HEIGHT + len(rows) * ROW_HEIGHT
    drawing.text(x, y + 10, title, "panel")
    if scale.is_logarithmic:
        for decade in scale.decades():
            drawing.line(left + scale.place(decade), top, left + scale.place(decade), bottom, "grid")
            drawing.text(left + scale.place(decade), bottom + 13, decade_text(decade), "quiet", "middle")
    for number, (server, spread) in enumerate(rows):
        middle = y + HEAD_HEIGHT + number * ROW_HEIGHT + ROW_HEIGHT / 2
        style = style_of(server)
        drawing.text(left - 8, middle + 4, server.title, "own" if style == "umbel" else "", "end")
        drawing.bar(left, middle - BAR_HEIGHT / 2, scale.place(spread.median), style)
        if spread.median > scale.high:
            drawing.arrow(left + BAR_WIDTH, middle, style)
        elif spread.greatest > spread.least:
            low, high = left + scale.place(spread.least), left + scale.place(spread.greatest)
            drawing.line(low, middle, high, middle, "whisker")
            for end in (low, high):
                drawing.line(end, middle - 3, end, middle + 3, "whisker")
        drawing.text(left + BAR_WIDTH + 8, middle + 4, number_text(spread.median, figure), "quiet")
    if figure.is_ratio:
        drawing.line(left + scale.place(1), top, left + scale.place(1), bottom, "one")
    return bottom - y + (16 if scale.is_logarithmic else 0)


def bars(title, subtitle, panels):
    """Panels of bars, two side by side: `panels` are titles, rows and figures."""
    columns = min(2, len(panels))
    drawing = Drawing(title, subtitle, 2 * MARGIN + columns * PANEL_WIDTH + (columns - 1) * PANEL_GAP)
    y = MARGIN + TITLE_HEIGHT
    for start in range(0, len(panels), columns):
        heights = []
        for column, (panel_title, rows, figure) in enumerate(panels[start : start + columns]):
            x = MARGIN + column * (PANEL_WIDTH + PANEL_GAP)
            heights.append(bar_panel(drawing, x, y, panel_title, rows, figure))
        y += max(heights) + PANEL_GAP
    drawing.height = y
    return drawing.svg()


def case_panels(summary, cases, servers):
    panels = []
    for case in cases:
        for figure in case.figures:
            named = [(server, summary.spread(case, server, figure)) for server in summary.servers(case, servers)]
            rows = [(server, spread) for server, spread in named if spread]
            title = case.title if len(case.figures) == 1 else f"{case.title}: {figure.title}"
            if rows:
                panels.append((title, rows, figure))
    return panels


def latencies(title, subtitle, summary, case, servers):
    """A row of dots for each server: quantiles as multiples of the floor's median, on a logarithmic scale."""
    rows = []
    for server in summary.servers(case, servers):
        spreads = {name: summary.ratios(case.name, server.name, name, base_figure="p50") for name in QUANTILES}
        if all(spreads.values()):
            rows.append((server, {name: spread.median for name, spread in spreads.items()}))
    if not rows:
        return None
    scale = Scale([value for _, quantiles in rows for value in quantiles.values()], True)
    stretch = 2.3
    drawing = Drawing(title, subtitle, 2 * MARGIN + LABEL_WIDTH + round(BAR_WIDTH * stretch) + 20)
    left, top = MARGIN + LABEL_WIDTH, MARGIN + TITLE_HEIGHT
    bottom = top + len(rows) * ROW_HEIGHT
    for decade in scale.decades():
        x = left + stretch * scale.place(decade)
        drawing.line(x, top - 4, x, bottom, "one" if abs(decade - 1) < 1e-9 else "grid")
        drawing.text(x, bottom + 15, f"{decade:g}", "quiet", "middle")
    for number, (server, quantiles) in enumerate(rows):
        middle = top + number * ROW_HEIGHT + ROW_HEIGHT / 2
        places = {name: left + stretch * scale.place(value) for name, value in quantiles.items()}
        style = style_of(server)
        drawing.text(left - 10, middle + 4, server.title, "own" if style == "umbel" else "", "end")
        drawing.line(min(places.values()), middle, max(places.values()), middle, "line")
        for name, radius in QUANTILES.items():
            drawing.dot(places[name], middle, radius, style)
    drawing.height = bottom + 30
    return drawing.svg()


def draw(summary, cases, servers):
    """All plots that there are figures for, by file name."""
    plots = {}
    whiskers = "median, and from the least to the greatest; less is better"
    ratio = f"CPU a message, as a ratio to the floor's (dashed), cut off at {RATIO_MAX}: {whiskers}"
    storm = f"As a ratio to the floor's (dashed), cut off at {RATIO_MAX}: {whiskers}"
    for name, title, subtitle, kinds in (
        ("fanout", "Fan-out: CPU of the server", ratio, ("fanout", "window")),
        ("echo", "Echo: CPU of the server", ratio, ("echo",)),
        ("memory", "Memory of an idle subscriber", f"Resident bytes, logarithmic: {whiskers}", ("idle",)),
        ("storm", "Connections that come and go", storm, ("storm",)),
    ):
        panels = case_panels(summary, [case for case in cases if case.kind in kinds], servers)
        if panels:
            plots[f"{name}.svg"] = bars(title, subtitle, panels)
    for case in cases:
        if case.kind == "latency":
            subtitle = "p50 (largest dot), p90, p99, p99.9 and max, as multiples of the floor's p50; less is better"
            plot = latencies(f"Latency: {case.title}", subtitle, summary, case, servers)
            if plot:
                plots["latency.svg"] = plot
    return plots
