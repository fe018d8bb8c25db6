#!/usr/bin/env python3
"""Loading and encoding on one core: Google Benchmark's figures of ours beside the `tokenizers` package
on the same text (the licence texts that every Debian carries), in turns, medians of CPU time. Fails
where loading takes more than half a second or encoding falls below 10 MB/s.

  speed.py FOLDER     FOLDER holds tokenizer.json, such as train_big.py makes
"""
import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import time

from tokenizers import Tokenizer


def ours(bench, folder):
    """{"BM_Load": seconds, "BM_Encode": seconds} and the number of ids."""
    done = subprocess.run([bench, f"--tokenizer_dir={folder}", "--benchmark_format=json"],
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
    runs = {run["name"]: run for run in json.loads(done.stdout)["benchmarks"]}
    return {name: run["cpu_time"] / 1e3 for name, run in runs.items()}, int(runs["BM_Encode"]["ids"])


def theirs(folder, text):
    began = time.process_time()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    loaded = time.process_time()
    count = len(tokenizer.encode(text, add_special_tokens=False).ids)
    return {"BM_Load": loaded - began, "BM_Encode": time.process_time() - loaded}, count


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--bench", default="build/bench/tokenizer_bench")
    parser.add_argument("--rounds", type=int, default=5)
    flags = parser.parse_args()
    text = "".join(path.read_text() for path in
                   sorted(pathlib.Path("/usr/share/common-licenses").iterdir()))
    size = len(text.encode())
    rounds = []
    for _ in range(flags.rounds):
        (mine, my_count), (other, count) = ours(flags.bench, flags.folder), theirs(flags.folder, text)
        if my_count != count:
            raise SystemExit(f"{my_count} ids, the package makes {count}")
        rounds.append((mine, other))
    missed = False
    for name, what in (("BM_Load", "load"), ("BM_Encode", f"encode {size} bytes")):
        mine = statistics.median(r[0][name] for r in rounds)
        other = statistics.median(r[1][name] for r in rounds)
        ratio = statistics.median(r[1][name] / r[0][name] for r in rounds)
        speed = f" = {size / mine / 1e6:.2f} MB/s" if name == "BM_Encode" else ""
        other_speed = f" = {size / other / 1e6:.2f} MB/s" if name == "BM_Encode" else ""
        missed |= mine > 0.5 if name == "BM_Load" else size / mine < 10e6
        print(f"{what}: ours {mine * 1e3:.1f} ms{speed}, tokenizers {other * 1e3:.1f} ms{other_speed}, "
              f"{ratio:.1f} times as fast")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
