#!/usr/bin/env python3
"""What a trace of /start_profile says of the GPU.

  trace_summary.py FILE      time by kernel, how busy the device was, the longest gaps
"""
import collections
import json
import signal
import sys

GAPS = 10


def main(path):
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    with open(path, encoding="utf-8") as file:
        events = json.load(file)["traceEvents"]
    tracks = {e["tid"]: e["args"]["name"] for e in events if e["ph"] == "M"}
    spans = [e for e in events if e["ph"] == "X"]
    launches = [e for e in spans if e["name"] == "launch"]
    device = sorted((e for e in spans if tracks[e["tid"]].startswith("GPU")), key=lambda e: e["ts"])
    if not device:
        sys.exit(f"{path}: no spans of a GPU")
    # A kernel may start while the one before it ends and wait for it: what counts is the time by which it moves the end.
    total = collections.defaultdict(lambda: [0, 0.0])
    begin, end, busy, gaps, before = device[0]["ts"], device[0]["ts"], 0.0, [], None
    for e in sorted(device, key=lambda e: e["ts"] + e["dur"]):
        if e["ts"] > end:
            gaps.append((e["ts"] - end, before, e["name"]))
        own = e["ts"] + e["dur"] - max(end, e["ts"])
        busy += own
        end, before = e["ts"] + e["dur"], e["name"]
        total[e["name"]][0] += 1
        total[e["name"]][1] += own
    length = end - begin
    steps = max(1, len(launches))
    print(f"{length / 1000:.3f} ms, {steps} steps of {length / steps / 1000:.3f} ms, {len(device)} device spans "
          f"({len(device) / steps:.0f} a step), device busy {100 * busy / length:.1f} %")
    print(f"{'span':<34}{'count':>8}{'us a step':>12}{'mean us':>10}{'share':>8}")
    for name, (count, time) in sorted(total.items(), key=lambda item: -item[1][1]):
        print(f"{name[:33]:<34}{count:>8}{time / steps:>12.1f}{time / count:>10.2f}{100 * time / length:>7.1f}%")
    idle = collections.defaultdict(lambda: [0, 0.0])
    for gap, left, right in gaps:
        idle[(left, right)][0] += 1
        idle[(left, right)][1] += gap
    print(f"gaps: {sum(g[0] for g in gaps) / steps:.1f} us a step; the most, by the spans beside them:")
    for (left, right), (count, time) in sorted(idle.items(), key=lambda item: -item[1][1])[:GAPS]:
        print(f"  {left} -> {right}: {count} of {time / count:.2f} us, {time / steps:.1f} us a step")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
