#!/usr/bin/env python3
"""Holds the direction of the rooms and the size limits.

  check_layers.py ROOT        exit 1 and one line per breach
  check_layers.py --self-test plants breaches in a copy of the table and must find them

Checked: every #include "room/..." of src/ against the table below; no CUDA header outside device, comm and kernel
sources; header, source and folder sizes (docs/STYLE.md).
"""
import os
import re
import sys
import tempfile

ROOMS = {
    "base": [],
    "io": ["base"],
    "text": ["base", "io"],
    "media": ["base"],
    "device": ["base"],
    "comm": ["base", "device"],
    "kv": ["base", "device"],
    "kernels": ["base"],
    "ops": ["base", "device", "comm", "kv", "kernels"],
    "model": ["base", "io", "device", "kv", "ops"],
    "engine": ["base", "device", "comm", "kv", "ops", "model"],
    "server": ["base", "io", "text", "media", "engine"],
    "app": None,  # sees all
}
MAX_LINES = {".h": 300, ".cc": 500, ".cu": 500, ".cuh": 800}
MAX_SOURCES = 12

# Exceptions, each with its reason: {(file, included): reason} and {file or folder: reason}.
INCLUDE_EXCEPTIONS = {}
SIZE_EXCEPTIONS = {}

INCLUDE = re.compile(r'^\s*#\s*include\s+["<]([^">]+)[">]')
CUDA = re.compile(r"^(cuda|cublas|nccl|cupti|cooperative_groups)")


def check_includes(path, room, lines):
    for number, line in enumerate(lines, 1):
        match = INCLUDE.match(line)
        if not match:
            continue
        included = match.group(1)
        target = included.split("/")[0]
        if CUDA.match(included) and room not in ("device", "comm", "kernels"):
            yield f"{path}:{number}: CUDA header {included} outside device, comm and kernels"
        if target not in ROOMS or "/" not in included or (path, included) in INCLUDE_EXCEPTIONS:
            continue
        allowed = ROOMS[room]
        if allowed is not None and target != room and target not in allowed:
            yield f"{path}:{number}: {room} may not include {included}"


def check_tree(root):
    src = os.path.join(root, "src")
    for folder, _, files in sorted(os.walk(src)):
        relative = os.path.relpath(folder, src)
        sources = [f for f in files if f.endswith((".cc", ".cu")) and not re.search(r"_(test|fuzz)\.", f)]
        if len(sources) > MAX_SOURCES and relative not in SIZE_EXCEPTIONS:
            yield f"src/{relative}: {len(sources)} sources, at most {MAX_SOURCES}: open a sub-room"
        for name in sorted(files):
            extension = os.path.splitext(name)[1]
            if extension not in MAX_LINES:
                continue
            path = os.path.join(folder, name)
            shown = os.path.relpath(path, root)
            room = relative.split(os.sep)[0]
            with open(path, encoding="utf-8") as file:
                lines = file.read().splitlines()
            if room not in ROOMS:
                yield f"{shown}: {room} is not a room"
                continue
            if len(lines) > MAX_LINES[extension] and shown not in SIZE_EXCEPTIONS:
                yield f"{shown}: {len(lines)} lines, at most {MAX_LINES[extension]}"
            yield from check_includes(shown, room, lines)


def self_test():
    with tempfile.TemporaryDirectory() as root:
        def write(name, text):
            path = os.path.join(root, "src", name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
        write("kv/good.cc", '#include "kv/a.h"\n#include "base/check.h"\n#include <vector>\n')
        assert not list(check_tree(root)), list(check_tree(root))
        write("text/bad.cc", '#include "engine/engine.h"\n')
        write("ops/bad.h", "#include <cuda_runtime.h>\n")
        write("io/long.h", "\n" * 301)
        for i in range(13):
            write(f"base/s{i}.cc", "\n")
        found = "\n".join(check_tree(root))
        for expected in ("text may not include", "CUDA header", "301 lines", "13 sources"):
            assert expected in found, (expected, found)


def main():
    self_test()
    if sys.argv[1:] == ["--self-test"]:
        return
    breaches = list(check_tree(sys.argv[1] if len(sys.argv) > 1 else "."))
    print("\n".join(breaches) if breaches else "layers: clean")
    sys.exit(1 if breaches else 0)


if __name__ == "__main__":
    main()
