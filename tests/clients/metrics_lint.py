#!/usr/bin/env python3
"""The page at /metrics of a running server under `promtool check metrics`: it must parse, and promtool may find fault only
with names that vLLM and SGLang gave. Standard library only."""
import argparse
import json
import re
import subprocess
import sys
import urllib.request

from server import PROGRAM, Server

# What promtool says of names that dashboards and routers already read; each line's family must match, and its words.
FORCED = [
    (r"(vllm|sglang|lapidary):\w+", r"metric names should not contain ':'"),
    (r"sglang:(prompt|generation)_tokens_histogram", r"metric name should not include type 'histogram'"),
]


def ask(url, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as reply:
        return reply.read().decode()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--program", default=PROGRAM)
    parser.add_argument("--promtool", default="promtool")
    arguments = parser.parse_args()
    with Server(program=arguments.program) as server:
        for stream in (False, True):
            ask(server.url + "/v1/chat/completions",
                {"messages": [{"role": "user", "content": "What is 12 + 30?"}], "stream": stream})
        page = ask(server.url + "/metrics")
    check = subprocess.run([arguments.promtool, "check", "metrics"], input=page, text=True, capture_output=True, check=False)
    if check.returncode not in (0, 3):  # 3: it parses, with lints
        sys.exit(f"promtool ended with {check.returncode}: {check.stderr}")
    lints = [line for line in (check.stdout + check.stderr).splitlines() if line.strip()]
    unforced = [line for line in lints
                if not any(re.fullmatch(f"{family} {words}", line) for family, words in FORCED)]
    print(f"{page.count('# TYPE')} families, {len(lints)} lints, {len(unforced)} of them not forced by a name")
    sys.exit("\n".join(unforced) if unforced else 0)


if __name__ == "__main__":
    main()
