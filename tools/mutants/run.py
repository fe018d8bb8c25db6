#!/usr/bin/env python3
"""Known bugs, planted one at a time in a copy of the sources: the simulation has to notice.

  run.py BUILD [--only NAME] [--steps N] [--jobs N]   exit 1 when fewer than 38 are caught
  run.py --check                                      only whether every mutant still applies

mutants.txt: "== name", "why: ..." (what went wrong in the field), "file: ...", then "-" lines, which occur exactly once
in the file, and the "+" lines that take their place; a blank line or another "file:" starts the next edit. BUILD is a
build folder in which the target `simulation` is built: only the mutated file is compiled, in front of its libraries.
"""
import argparse
import concurrent.futures
import json
import os
import re
import shlex
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TABLE = os.path.join(ROOT, "tools/mutants/mutants.txt")
LIMIT = 38
# Who compiles a header's inline functions into the scheduler.
USERS_OF_HEADERS = ["src/kv/page_budget.cc", "src/engine/scheduler/scheduler.cc", "src/engine/scheduler/sequence_pages.cc"]


def parse(path):
    mutants, edit = [], None
    for number, line in enumerate(open(path, encoding="utf-8"), 1):
        line = line.rstrip("\n")
        if line.startswith("== "):
            mutants.append({"name": line[3:], "why": "", "edits": []})
            edit, file = None, None
        elif line.startswith("why: "):
            mutants[-1]["why"] = line[5:]
        elif line.startswith("file: "):
            file, edit = line[6:], None
        elif line[:1] in ("-", "+"):
            if edit is None:
                edit = {"file": file, "old": [], "new": []}
                mutants[-1]["edits"].append(edit)
            edit["old" if line[0] == "-" else "new"].append(line[1:])
        elif not line:
            edit = None
        elif not line.startswith("#"):
            sys.exit(f"{path}:{number}: {line}")
    return mutants


def mutated(mutant):
    """The changed files: path -> text."""
    texts = {}
    for edit in mutant["edits"]:
        path = edit["file"]
        text = texts.get(path) or open(os.path.join(ROOT, path), encoding="utf-8").read()
        old, new = "\n".join(edit["old"]), "\n".join(edit["new"])
        if text.count(old) != 1:
            sys.exit(f"mutants.txt: {mutant['name']}: its text occurs {text.count(old)} times in {path}:\n{old}")
        texts[path] = text.replace(old, new)
    if not texts:
        sys.exit(f"mutants.txt: {mutant['name']} changes nothing")
    return texts


class Builder:
    def __init__(self, build):
        self.build = os.path.abspath(build)
        commands = json.load(open(os.path.join(self.build, "compile_commands.json"), encoding="utf-8"))
        self.compile = {os.path.relpath(c["file"], ROOT): c["command"] for c in commands}
        lines = subprocess.run(["ninja", "-C", self.build, "-t", "commands", "simulation"], check=True,
                               capture_output=True, text=True).stdout.splitlines()
        link = re.search(r"&& (.*) &&", lines[-1])
        self.link = shlex.split(link.group(1) if link else lines[-1])

    def make(self, name, texts):
        """The simulation with these files (path -> text) in place of the sources."""
        folder = os.path.join(self.build, "mutants", name)
        for path, text in texts.items():
            target = os.path.join(folder, path)
            os.makedirs(os.path.dirname(target), exist_ok=True)
            with open(target, "w", encoding="utf-8") as out:
                out.write(text)
        sources = [p for p in texts if p.endswith(".cc")]
        if len(sources) < len(texts):
            sources = USERS_OF_HEADERS
        objects = []
        for path in sources:
            command = shlex.split(self.compile[path])
            here = os.path.join(folder, path)
            source = here if path in texts else os.path.join(ROOT, path)
            out = here + ".o"
            os.makedirs(os.path.dirname(out), exist_ok=True)
            command[command.index("-o") + 1] = out
            command[command.index("-c") + 1] = source
            command = [c for c in command if c not in ("-g1", "-O2")]
            first = next(i for i, c in enumerate(command) if c.startswith("-I"))
            command[first:first] = ["-O1", "-w", "-I" + os.path.join(folder, "src")]
            subprocess.run(command, cwd=self.build, check=True)
            objects.append(out)
        program = os.path.join(folder, "simulation")
        link = list(self.link)
        link[link.index("-o") + 1] = program
        first = next(i for i, c in enumerate(link) if c.endswith(".o"))
        link[first:first] = objects
        subprocess.run(link, cwd=self.build, check=True)
        return program


def run(builder, name, texts, steps):
    """Who caught it (or ""), and after how many seconds."""
    program = builder.make(name, texts)
    start = time.monotonic()
    try:
        done = subprocess.run([program, "--steps", str(steps), "--threads", "1", "--twice", "10"], capture_output=True,
                              text=True, timeout=900)
    except subprocess.TimeoutExpired:
        return "does not end", time.monotonic() - start, "-"
    seconds = time.monotonic() - start
    os.remove(program)
    output = done.stderr + done.stdout
    if done.returncode == 0:
        return "", seconds, "-"
    seed = re.search(r"--seed (\d+)", output)
    failed = re.search(r"check failed at ([^:]+:\d+): (.*)", output)
    goal = re.search(r"GOAL (\S+) .* FAIL", output)
    if failed:
        check = f"{failed.group(1)} {failed.group(2)}"
    elif goal:
        check = goal.group(0)
    else:
        check = f"exit {done.returncode}"
    return check, seconds, seed.group(1) if seed else "all"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", nargs="?")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--only")
    parser.add_argument("--steps", type=int, default=5_000_000)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    args = parser.parse_args()
    mutants = parse(TABLE)
    for mutant in mutants:
        mutated(mutant)
    if args.check or not args.build:
        print(f"{len(mutants)} mutants apply")
        return 0 if len(mutants) >= 40 else 1
    if args.only:
        mutants = [m for m in mutants if re.search(args.only, m["name"])]
    builder = Builder(args.build)
    # A build that is older than the sources crashes by itself, which would pass for a catch.
    unchanged = {path: open(os.path.join(ROOT, path), encoding="utf-8").read() for m in mutants for path in mutated(m)}
    check, seconds, seed = run(builder, "unchanged", unchanged, args.steps // 10)
    if check:
        sys.exit(f"the sources without a mutant fail too, is {args.build} up to date?\nseed {seed}: {check}")
    print(f"{'(unchanged)':32} {'seed ' + seed:>9} {seconds:7.1f} s  passes")
    caught = 0
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        for mutant, result in zip(mutants, pool.map(lambda m: run(builder, m["name"], mutated(m), args.steps), mutants)):
            check, seconds, seed = result
            caught += bool(check)
            caught_by = check[:110] or "NOT CAUGHT"
            print(f"{mutant['name']:32} {'seed ' + seed:>9} {seconds:7.1f} s  {caught_by}", flush=True)
    print(f"{caught} of {len(mutants)} caught")
    if args.only:
        return 0
    print(f"GOAL G3 {caught} {LIMIT} {'PASS' if caught >= LIMIT else 'FAIL'}")
    return 0 if caught >= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
