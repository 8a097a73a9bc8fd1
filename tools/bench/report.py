#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Turns the figures of a benchmark run into a table and a chart.

usage: report.py FIGURES.tsv CHART.svg
"""

import html
import statistics
import sys
from collections import defaultdict

DRIVERS = ("btrfs", "rbtrfs")
COLORS = {"btrfs": "#9aa5b1", "rbtrfs": "#d2552d"}


def read(path):
    """The seconds of every round, by case and driver, in the order of the file."""
    cases = defaultdict(lambda: defaultdict(list))
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            case, driver, _round, seconds = line.rstrip("\n").split("\t")
            cases[case][driver].append(float(seconds))
    return cases


def shown(seconds):
    """Seconds for people, in which thousandths count where there is nothing else."""
    return f"{seconds:.2f}" if seconds >= 0.1 else f"{seconds:.4f}"


def table(cases):
    """A Markdown table of medians; the ratio is the median of the rounds' ratios."""
    rows = ["| case | C driver, s | rbtrfs, s | times as fast | spread |", "|---|---|---|---|---|"]
    for case, by_driver in cases.items():
        c, r = (by_driver[driver] for driver in DRIVERS)
        ratios = sorted(a / b for a, b in zip(c, r))
        rows.append(
            f"| {case} | {shown(statistics.median(c))} | {shown(statistics.median(r))} "
            f"| **{statistics.median(ratios):.1f}** | {ratios[0]:.1f} to {ratios[-1]:.1f} |"
        )
    return "\n".join(rows)


def chart(cases):
    """Bars of medians, each pair scaled to its slower one, as SVG."""
    width, label, bar, gap = 760, 280, 16, 18
    height = len(cases) * (2 * bar + gap) + 40
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        'font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    y = 12
    for case, by_driver in cases.items():
        medians = {driver: statistics.median(by_driver[driver]) for driver in DRIVERS}
        longest = max(medians.values())
        out.append(f'<text x="8" y="{y + bar + 4}">{html.escape(case)}</text>')
        for i, driver in enumerate(DRIVERS):
            size = (width - label - 90) * medians[driver] / longest
            top = y + i * bar
            out.append(
                f'<rect x="{label}" y="{top}" width="{size:.1f}" height="{bar - 2}" fill="{COLORS[driver]}"/>'
            )
            out.append(f'<text x="{label + size + 6:.1f}" y="{top + 11}">{shown(medians[driver])} s</text>')
        y += 2 * bar + gap
    for i, driver in enumerate(DRIVERS):
        x = label + i * 140
        name = "C driver" if driver == "btrfs" else "rbtrfs"
        out.append(f'<rect x="{x}" y="{y}" width="12" height="12" fill="{COLORS[driver]}"/>')
        out.append(f'<text x="{x + 18}" y="{y + 11}">{name}</text>')
    out.append("</svg>\n")
    return "\n".join(out)


def main():
    """Reads, prints, writes."""
    figures, picture = sys.argv[1:]
    cases = read(figures)
    print(table(cases))
    with open(picture, "w", encoding="utf-8") as out:
        out.write(chart(cases))
    print(f"\nThe chart is in {picture}.")


if __name__ == "__main__":
    main()
