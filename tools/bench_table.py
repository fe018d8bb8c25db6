#!/usr/bin/env python3
"""Prints the rows of docs/BENCHMARKS.md, "Models on a GPU", from records of tests/gpu/cells.sh.

  bench_table.py [FOLDER [CARD]]      bench/records h200
"""
import json
import os
import sys

MODELS = ["E2B", "E4B", "26B-A4B", "31B"]
# Of vLLM 0.24.0 on such a machine (published), tok/s.
PEER = {"batch1": [294, 206, 227, 55], "chat": [14796, 8910, 3521, 1109], "mtp": [None, None, 6868, 2155],
        "summ": [7433, 3834, 2151, 544]}


def read(folder, card, kind):
    records = []
    for model in MODELS:
        path = os.path.join(folder, f"{card}-{model}-{kind}.json")
        try:
            with open(path, encoding="utf-8") as file:
                records.append(json.load(file))
        except (OSError, ValueError):
            records.append(None)
    return records


def number(record, key):
    figure = (record or {}).get("figures", {}).get(key)
    return figure["median"] if figure else None


def text(value, digits=None):
    if value is None:
        return "–"
    return f"{value:,.{digits if digits is not None else 0 if value >= 1000 else 1 if value >= 100 else 2}f}"


def row(title, cells):
    print(f"| {title} | " + " | ".join(cells) + " |")


def times(record):
    return f'{text(number(record, "median_itl_ms"))} / {text(number(record, "p99_itl_ms"))}; {text(number(record, "median_ttft_ms"))}'


def main():
    folder, card = (sys.argv[1:] + ["bench/records", "h200"][len(sys.argv) - 1:])[:2]
    by_kind = {kind: read(folder, card, kind) for kind in ("batch1", "chat", "http", "mtp", "summ")}
    print(f"| {card} | " + " | ".join(MODELS) + " |\n|---" + "|---" * len(MODELS) + "|")
    for kind, title, key in (("batch1", "batch 1 (1000 in, 256 out), decode tok/s a request", "decode_tok_per_s_a_request"),
                             ("chat", "chat, 80 at once (1000 in, 1000 out), output tok/s", "output_throughput"),
                             ("mtp", "chat with 3 drafts a burst, output tok/s", "output_throughput"),
                             ("summ", "summ, 80 at once (8000 in, 1000 out), output tok/s", "output_throughput")):
        records = by_kind[kind]
        row(f"{title}; vLLM", [f"{text(number(r, key))}; {text(peer, 0)}" for r, peer in zip(records, PEER[kind])])
        share = "decode_percent_of_bound" if kind == "batch1" else "percent_of_bound"
        row("% of the bound of the same run", [text(number(r, share), 1) for r in records])
        row("ITL median / p99 ms; TTFT median ms", [times(r) for r in records])
        if kind == "chat":
            web = [number(r, "output_throughput") for r in by_kind["http"]]
            row("the same over HTTP, output tok/s; % of the figure in process",
                [f"{text(w)}; {text(w and number(r, key) and 100 * w / number(r, key), 1)}" for w, r in zip(web, records)])
    row("valid (26B-A4B): experts a layer; of independent rows; distinct tokens of 800", [
        f'{"yes" if r["valid"] else "NO"}: {text(number(r, "distinct_experts_a_layer"))}; '
        f'{text(number(r, "independent_experts_a_layer"))}; {text(number(r, "distinct_sampled_tokens"), 0)}'
        if r and "valid" in r else "–" for r in by_kind["chat"]])
    row("most running: chat, with drafts, summ",
        [", ".join(text(number(by_kind[k][i], "running"), 0) for k in ("chat", "mtp", "summ")) for i in range(len(MODELS))])
    row("ready s", [text((r or {}).get("engine", {}).get("ready_s")) for r in by_kind["chat"]])


if __name__ == "__main__":
    main()
