#!/usr/bin/env python3
"""Whole models on the GPU of this machine against transformers on the same GPU.

  gpu_models.py --lapidary PROGRAM --models FOLDER --configs FOLDER --out FOLDER --record FILE [--source HASH] [--only NAME ...]

Shipped: pebble and its drafter. Families: small checkpoints with their drafters, with the head sizes, groups and experts of the published
models. Full width: the published configurations with random weights, saved, read by `lapidary verify`, deleted.
The record is written after each; what it holds of the same source is not run again. Exit 1 when one fails.
"""
import argparse
import json
import pathlib
import shutil
import subprocess
import sys
import time

import torch
from transformers.utils import logging

import full_width
import make_checkpoint
import make_goldens
from sizes import Sizes

COMMON = dict(hidden=512, layers=12, heads=8, head_dim=256, global_head_dim=512, mlp=1024, window=128, vocab=2048,
              ple=256, experts=128, top_k=8, expert_mlp=128, draft_hidden=256, draft_mlp=512, centroids=64,
              centroid_top_k=8, towers=False)
FAMILIES = {
    "dense": Sizes("dense", kv_heads=4, global_kv_heads=1, draft_heads=8, **COMMON),
    "moe": Sizes("moe", kv_heads=4, global_kv_heads=2, draft_heads=8, **COMMON),
    "edge": Sizes("edge", kv_heads=2, draft_heads=4, **COMMON),
    "wide": Sizes("wide", kv_heads=1, draft_heads=4, **COMMON),
}
FAMILY_LENGTHS = [1, 63, 64, 65, 127, 128, 129, 130, 300, 700]
SHIPPED = "pebble"
FULL = {  # published name, window, layers (0: all)
    "E2B": ("gemma-4-E2B-it", 512, 0),
    "26B-A4B": ("gemma-4-26B-A4B-it", 1024, 12),
    "E4B": ("gemma-4-E4B-it", 512, 0),
    "31B": ("gemma-4-31B-it", 1024, 12),
}


class Record:
    def __init__(self, path, source):
        self.path = pathlib.Path(path)
        old = json.loads(self.path.read_text()) if self.path.exists() else {}
        self.models = old.get("models", {}) if source and old.get("source") == source else {}
        self.source = source

    def has(self, name):
        return self.models.get(name, {}).get("passed", False)

    def add(self, name, passed, lines):
        self.models[name] = {"passed": passed, "lines": lines}
        device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
        self.path.write_text(json.dumps({"device": device, "source": self.source, "models": self.models}, indent=1))


class Verification:
    """`lapidary verify` beside other work."""

    def __init__(self, flags, name, folder, lines, *extra):
        self.name, self.lines, self.begin = name, lines, time.monotonic()
        command = [flags.lapidary, "verify", "--model", folder, "--goldens", flags.out / f"{name}.safetensors",
                   "--backend", flags.backend, "--dtype", "bfloat16", *extra]
        self.process = subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, text=True)

    def finish(self):
        output = self.process.communicate()[0].splitlines()
        passed = self.process.returncode == 0
        # Of single texts only those with a wrong token.
        self.lines += [line for line in output if not (line.lstrip().startswith("text.") and ", 0 wrong" in line)]
        self.lines.append(f"verify took {time.monotonic() - self.begin:.1f} s")
        return passed


def conditioned(name, shape, seed):
    if name.endswith("token_ordering"):
        return make_checkpoint.values(name, shape, seed)
    return full_width.fill(name, torch.empty(shape, dtype=torch.bfloat16), seed)


def prove_family(flags, name, record):
    folder, lines = flags.out / name, []
    begin = time.monotonic()
    if name == SHIPPED:
        folder = flags.models / name
    else:
        make_checkpoint.make(FAMILIES[name], folder, 11, rule=conditioned)
        make_checkpoint.make(FAMILIES[name], f"{folder}-assistant", 12, assistant=True, rule=conditioned)
    asked = make_goldens.Asked(flags.lengths or FAMILY_LENGTHS, greedy=8, drafts=8, cached=True, device=flags.device)
    make_goldens.make(folder, f"{folder}-assistant", flags.out / f"{name}.safetensors", asked, bf16=True)
    lines.append(f"checkpoint and goldens took {time.monotonic() - begin:.1f} s")
    passed = True
    folds = name in FAMILIES and FAMILIES[name].traits["k_eq_v"]  # by default, and not
    for layout in ([], ["--no-kv-fold"]) if folds else ([],):
        for chunk in ("0", "100"):
            passed &= Verification(flags, name, folder, lines, "--chunk", chunk, *layout).finish()
    report(name, passed, lines, record)
    return passed


def report(name, passed, lines, record):
    print("ok  " if passed else "FAIL", name)
    print(*("    " + line for line in lines), sep="\n", flush=True)
    record.add(name, passed, lines)


def prove_full(flags, names, record):
    """Each model is verified while the next is made."""
    pending, passed = None, True

    def finish():
        nonlocal pending, passed
        if pending is None:
            return
        good = pending.finish()
        report(pending.name, good, pending.lines, record)
        shutil.rmtree(flags.out / pending.name)
        (flags.out / f"{pending.name}.safetensors").unlink()
        passed, pending = passed and good, None

    for name in names:
        published, window, layers = FULL[name]
        folder, lines = flags.out / name, []
        making = full_width.Making(flags.configs / published, folder, layers, flags.device, lines.append)
        making.run_bf16(flags.lengths or full_width.lengths(window))
        finish()
        making.run_f32(flags.out / f"{name}.safetensors")
        del making
        torch.cuda.empty_cache()
        pending = Verification(flags, name, folder, lines)
    finish()
    return passed


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("lapidary", "models", "configs", "out", "record"):
        parser.add_argument(f"--{name}", required=True, type=pathlib.Path)
    parser.add_argument("--source", default="")
    parser.add_argument("--only", choices=[SHIPPED, *FAMILIES, *FULL], nargs="+")
    parser.add_argument("--backend", default="cuda")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--lengths", type=lambda text: [int(word) for word in text.split(",")])
    flags = parser.parse_args()
    logging.disable_progress_bar()
    flags.out.mkdir(parents=True, exist_ok=True)
    record = Record(flags.record, flags.source)
    wanted = [name for name in flags.only or [SHIPPED, *FAMILIES, *FULL] if not record.has(name)]
    good = [prove_family(flags, name, record) for name in wanted if name not in FULL]
    good.append(prove_full(flags, [name for name in wanted if name in FULL], record))
    sys.exit(0 if all(good) else 1)


if __name__ == "__main__":
    main()
