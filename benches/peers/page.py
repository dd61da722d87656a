"""The page, RESULTS.md, and what it says of the machine."""

import os
import platform
import re

import install
from cases import KINDS
from plots import draw
from summary import BUN, number_text

PLOTS_OF_KIND = {"fanout": "fanout", "echo": "echo", "latency": "latency", "idle": "memory", "storm": "storm"}

INTRODUCTION = """\
# Umbel against others

Written on {date}; repetitions: up to {repetitions}. The commands:

```sh
{command}
```

Every server does the same work on the same machine, loaded by `umbel bench`, one after another: each repetition takes
each case through all servers, each time in another order, and each measurement has a fresh server. **The floor**
(`benches/floor.rs`) is the least that a server can do: it writes a frame to each socket and promises nothing.

- Figures are ratios to the floor's in the same repetition: the median, and below it the least and the greatest of all
  repetitions. Less is better, 1 is the floor. Times of one machine say nothing about another; ratios do, roughly.
- CPU is user and system time of the server's processes, for each message that arrived or each connect that was made.
- The server has one CPU and the load generator another, unless it says that they share both.
- What a server lost, closed or refused stands below the tables. A dash: the server cannot do it, or not as the others.
"""

FAIRNESS = """\
## How each is set up

One thread or one worker for connections each, no compression, no access log, its own best way to publish to many. Over
TLS all have the same certificate (ECDSA P-256), and the cipher is the one that they agree on with `umbel bench`; there the
floor seals a record for each socket by a key that it keeps ready. Where several publications are in flight, the floor writes all that arrived at once in one send (`--coalesce`).
`nchan` and `nats-server` have no echo. Bun stands for uWebSockets too, whose own package is not on npm. Sockudo cannot
be published to by a bare WebSocket message, nor by a request that is not signed: a process beside the load generator
signs them, and is not counted; so it has no part where that would be what is measured.
"""


def machine():
    """What kind of machine this is, without its name."""
    with open("/proc/cpuinfo") as file:
        model = re.search(r"model name\s*: (.+)", file.read())
    with open("/proc/meminfo") as file:
        memory_kib = int(re.search(r"MemTotal:\s+(\d+)", file.read()).group(1))
    kernel = ".".join(re.findall(r"\d+", platform.release())[:2])
    return {
        "cpus": os.cpu_count(),
        "cpu": model.group(1) if model else platform.machine(),
        "architecture": platform.machine(),
        "memory_gib": round(memory_kib / (1 << 20)),
        "kernel": f"Linux {kernel}",
    }


def cell(spread, figure, mark):
    if spread is None:
        return "–"
    text = number_text(spread.median, figure)
    if spread.count > 1:
        text += f"<br><sub>{number_text(spread.least, figure)}–{number_text(spread.greatest, figure)}</sub>"
    return text + mark


def table(summary, cases, servers):
    """A table of all cases of a kind: a row for each case and figure, a column for each server."""
    shown = [server for server in servers if any(server in summary.servers(case, servers) for case in cases)]
    head = ["case", *(server.title for server in shown)]
    lines = [f"| {' | '.join(head)} |", f"| --- |{' ---: |' * len(shown)}"]
    for case in cases:
        for figure in case.figures:
            name = case.title if len(case.figures) == 1 else f"{case.title}: {figure.title}"
            cells = []
            for server in shown:
                is_there = server in summary.servers(case, servers)
                mark = " *" if is_there and summary.notes(case, server) else ""
                cells.append(cell(summary.spread(case, server, figure) if is_there else None, figure, mark))
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def against_bun(summary, case, servers):
    """Latencies once more, as ratios to Bun's."""
    parts = []
    for figure in case.figures:
        umbel = summary.ratios(case.name, "umbel", figure.name, base=BUN)
        if umbel:
            spread = f"{umbel.median:.2f} ({umbel.least:.2f} to {umbel.greatest:.2f})"
            parts.append(f"{figure.title} {spread}")
    return [f"Umbel's as a ratio to Bun's: {', '.join(parts)}.", ""] if parts else []


def section(summary, kind, cases, servers, plots):
    figures = cases[0].figures
    unit = ", as a ratio to the floor's" if figures[0].is_ratio else ""
    names = " and ".join(figure.title for figure in figures)
    about = f"{names[0].upper()}{names[1:]}{unit}."
    lines = [f"## {KINDS[kind]}", "", about, "", *table(summary, cases, servers), ""]
    for case in cases:
        if kind == "latency":
            lines += against_bun(summary, case, servers)
        for server in summary.servers(case, servers):
            note = summary.notes(case, server)
            if note:
                lines.append(f"- \\* {server.title}, {case.title}: {note}")
    if lines[-1]:
        lines.append("")
    plot = PLOTS_OF_KIND.get(kind)
    if plot and f"{plot}.svg" in plots:
        lines += [f"![{KINDS[kind]}]({plot}.svg)", ""]
    return lines


def write(folder, result, summary, cases, servers):
    """Writes the page and its plots into a folder."""
    plots = draw(summary, cases, servers)
    lines = [INTRODUCTION.format(**result)]
    at = result["machine"]
    lines += [f"Machine: {at['cpus']} CPUs ({at['cpu']}), {at['memory_gib']} GiB, {at['kernel']}.", ""]
    for kind in KINDS:
        of_kind = [case for case in cases if case.kind == kind and summary.servers(case, servers)]
        if of_kind:
            lines += section(summary, kind, of_kind, servers, plots)
    lines += [FAIRNESS, "| server | version | set up |", "| --- | --- | --- |"]
    for server in servers:
        files = "".join(f", [`{file}`]({file})" for file in server.files)
        lines.append(f"| {server.title} | {result['versions'].get(server.name, '')} | {server.says}{files} |")
    lines += ["", "How they were started first:", "", "```text", *commands(result), "```"]
    for name, svg in plots.items():
        (folder / name).write_text(svg)
    (folder / "RESULTS.md").write_text("\n".join(lines) + "\n")


def commands(result):
    """How each server was started, without the places that differ from run to run."""
    for name, command in result["commands"].items():
        yield f"{name}: {command.replace(str(install.ROOT) + '/', '')}"
