#!/usr/bin/env python3
"""Draws the records of `lapidary bench step` as one SVG: a decode step's time over batch and context beside its bound.

  plot_steps.py RECORD... > docs/steps.svg
"""
import json
import math
import sys

WIDTH, HEIGHT, LEFT, TOP, GAP, ROW_GAP = 420, 240, 52, 62, 130, 84
COLOURS = ["#1b6ca8", "#d1495b", "#2e8b57", "#e08e0b", "#7a5195"]
SHOWN = {"batch": [1, 8, 32, 80, 256], "context": [128, 1500, 8192, 32768]}


def lines_of(points, along, fixed):
    """[(value of `fixed`, its points in order of `along`)] of the values shown."""
    values = [value for value in SHOWN[fixed] if any(p[fixed] == value for p in points)]
    values = values or sorted({p[fixed] for p in points})[:len(COLOURS)]
    return [(value, sorted((p for p in points if p[fixed] == value), key=lambda p: p[along])) for value in values]


class Panel:
    def __init__(self, x, y, title, along, points, out):
        self.x, self.y, self.along, self.out = x, y, along, out
        self.lows = [math.log10(min(p[along] for p in points)), math.log10(min(p["bound_ms"] for p in points) * 0.8)]
        self.highs = [math.log10(max(p[along] for p in points)), math.log10(max(p["ms"] for p in points) * 1.2)]
        if self.highs[0] == self.lows[0]:
            self.highs[0] += 1
        out.append(f'<text x="{x}" y="{y - 12}" class="title">{title}</text>')
        for tick in sorted({p[along] for p in points}):
            at = self.place(tick, 10 ** self.lows[1])[0]
            out.append(f'<line x1="{at:.1f}" y1="{y}" x2="{at:.1f}" y2="{y + HEIGHT}" class="grid"/>')
            out.append(f'<text x="{at:.1f}" y="{y + HEIGHT + 14}" class="tick" text-anchor="end" '
                       f'transform="rotate(-40 {at:.1f} {y + HEIGHT + 14})">{tick}</text>')
        for power in range(math.floor(self.lows[1]), math.ceil(self.highs[1])):
            for digit in (1, 2, 3, 5, 7):
                value = digit * 10.0 ** power
                if self.lows[1] <= math.log10(value) <= self.highs[1]:
                    at = self.place(10 ** self.lows[0], value)[1]
                    out.append(f'<line x1="{x}" y1="{at:.1f}" x2="{x + WIDTH}" y2="{at:.1f}" class="grid"/>')
                    out.append(f'<text x="{x - 6}" y="{at + 4:.1f}" class="tick" text-anchor="end">{value:g}</text>')
        out.append(f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" class="frame"/>')
        out.append(f'<text x="{x + WIDTH / 2}" y="{y + HEIGHT + 48}" class="tick" text-anchor="middle">{along}</text>')

    def place(self, value, ms):
        share = [(math.log10(v) - low) / (high - low) for v, low, high in zip((value, ms), self.lows, self.highs)]
        return self.x + share[0] * WIDTH, self.y + HEIGHT - share[1] * HEIGHT

    def draw(self, points, colour, label, row):
        for key, style in (("bound_ms", "bound"), ("ms", "step")):
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (self.place(p[self.along], p[key]) for p in points))
            self.out.append(f'<polyline points="{path}" class="{style}" stroke="{colour}"/>')
        for p in points:
            x, y = self.place(p[self.along], p["ms"])
            self.out.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.4" fill="{colour}"/>')
        x, y = self.x + WIDTH + 8, self.y + 12 + 15 * row
        self.out.append(f'<text x="{x}" y="{y}" class="key" fill="{colour}">{label}</text>')


def main():
    records = []
    for path in sys.argv[1:]:
        with open(path, encoding="utf-8") as file:
            records.append(json.load(file))
    if not records:
        sys.exit(__doc__)
    width, height = LEFT + 2 * (WIDTH + GAP), TOP + len(records) * (HEIGHT + ROW_GAP)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif">',
           "<style>.title{font-size:14px;font-weight:bold}.tick,.key{font-size:11px}.grid{stroke:#ddd;stroke-width:.6}"
           ".frame{fill:none;stroke:#888}.step{fill:none;stroke-width:1.6}"
           ".bound{fill:none;stroke-width:1.2;stroke-dasharray:5 4}</style>",
           f'<rect width="{width}" height="{height}" fill="white"/>',
           f'<text x="{LEFT}" y="26" class="title">Milliseconds of a decode step, {records[0]["device"]}; dashed: '
           "its bound by the ceilings of the same run</text>"]
    for row, record in enumerate(records):
        points = record["points"]
        for column, (along, fixed) in enumerate((("batch", "context"), ("context", "batch"))):
            panel = Panel(LEFT + column * (WIDTH + GAP), TOP + row * (HEIGHT + ROW_GAP),
                          f'{record["model"]} over {along}', along, points, out)
            for i, (value, line) in enumerate(lines_of(points, along, fixed)):
                panel.draw(line, COLOURS[i % len(COLOURS)], f"{fixed} {value}", i)
    print("\n".join(out + ["</svg>"]))


if __name__ == "__main__":
    main()
