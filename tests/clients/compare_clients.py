#!/usr/bin/env python3
"""Our metrics against those of the two clients that people compare servers with.

  compare_clients.py RECORD   a record of `lapidary bench serve --output-json RECORD`

The recorded moments of each run go through `calculate_metrics` of `vllm bench serve` and of sglang's `bench_serving`,
as they are installed (without their dependencies: tests/clients/compare_requirements.txt; what their modules import
beside numpy is replaced by empty classes). Every figure must agree with ours to 1e-6 of its value."""
import dataclasses
import importlib
import importlib.machinery
import importlib.metadata
import importlib.util
import json
import sys
import types

TOLERANCE = 1e-6
REAL = {"vllm": {"vllm.benchmarks.serve", "vllm.benchmarks.lib.endpoint_request_func"},
        "sglang": {"sglang.benchmark.serving"}}
# Where a figure of ours has another name.
SGLANG_NAMES = {"total_token_throughput": "total_throughput"}


class Anything:
    """Made of any arguments, does nothing."""

    def __init__(self, *_args, **_kwargs):
        pass


class Stub(types.ModuleType):
    """A module in which every name is such a class."""
    __path__ = []

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        made = type(name, (Anything,), {})
        setattr(self, name, made)
        return made


class StubFinder:
    """Finds what is not installed, and the clients' own modules but those that are asked for."""

    def find_spec(self, name, _path=None, _target=None):
        client = name.split(".")[0]
        if client not in REAL:
            return importlib.machinery.ModuleSpec(name, self, is_package=True) if self is LAST else None
        if self is LAST or name in REAL[client] or any(real.startswith(name + ".") for real in REAL[client]):
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec):
        return Stub(spec.name)

    def exec_module(self, module):
        pass


FIRST, LAST = StubFinder(), StubFinder()


def load(client, name):
    """The module `name` without running its packages' own __init__."""
    folder = importlib.util.find_spec(client).submodule_search_locations
    for depth in range(1, name.count(".") + 1):
        package = ".".join(name.split(".")[:depth])
        module = types.ModuleType(package)
        module.__path__ = [f"{folder[0]}/{'/'.join(package.split('.')[1:])}"]
        sys.modules[package] = module
    return importlib.import_module(name)


def outputs_of(run, make):
    """A run's requests as a client would have recorded them."""
    outputs = []
    for request in run["requests"]:
        moments = request["arrivals_s"]
        output = make()
        output.success = True
        output.start_time = request["sent_s"]
        output.prompt_len = request["prompt_tokens"]
        output.ttft = moments[0] - request["sent_s"]
        output.latency = moments[-1] - request["sent_s"]
        output.itl = [after - before for before, after in zip(moments, moments[1:])]
        setattr(output, "output_tokens" if hasattr(output, "output_tokens") else "output_len", request["output_tokens"])
        outputs.append(output)
    return outputs


def vllm_figures(module, run):
    outputs = outputs_of(run, module.RequestFuncOutput)
    metrics, _ = module.calculate_metrics(input_requests=[], outputs=outputs, dur_s=run["duration_s"], tokenizer=None,
                                          selected_percentiles=[99], goodput_config_dict={})
    figures = dataclasses.asdict(metrics)
    for of in ("ttft", "tpot", "itl", "e2el"):
        figures[f"p99_{of}_ms"] = figures[f"percentiles_{of}_ms"][0][1]
    return figures


def sglang_figures(module, run):
    class NoTokenizer:
        def encode(self, *_args, **_kwargs):
            return []

    outputs = outputs_of(run, module.RequestFuncOutput)
    rows = [types.SimpleNamespace(prompt_len=o.prompt_len, text_prompt_len=o.prompt_len, vision_prompt_len=0)
            for o in outputs]
    metrics, _ = module.calculate_metrics(input_requests=rows, outputs=outputs, dur_s=run["duration_s"],
                                          tokenizer=NoTokenizer(), backend="sglang")
    figures = dataclasses.asdict(metrics)
    return {**figures, **{ours: figures[theirs] for ours, theirs in SGLANG_NAMES.items()},
            **{name.replace("e2e_latency", "e2el"): value for name, value in figures.items()}}


def compare(record, client, figures_of):
    """Prints a line a figure; returns how many were compared and how many differ."""
    compared = wrong = 0
    theirs = [figures_of(run) for run in record["runs"]]
    for name, figure in record["figures"].items():
        if name not in theirs[0]:
            continue
        worst = max(abs(ours - other[name]) / max(abs(other[name]), 1e-12)
                    for ours, other in zip(figure["runs"], theirs))
        compared += 1
        wrong += not worst <= TOLERANCE
        print(f"{client:7} {name:26} ours {figure['runs'][0]:14.6f}  theirs {theirs[0][name]:14.6f}  "
              f"largest relative difference {worst:.1e}{'' if worst <= TOLERANCE else '  WRONG'}")
    return compared, wrong


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    with open(sys.argv[1], encoding="utf-8") as file:
        record = json.load(file)
    sys.meta_path.insert(0, FIRST)
    sys.meta_path.append(LAST)
    vllm = load("vllm", "vllm.benchmarks.serve")
    sglang = load("sglang", "sglang.benchmark.serving")
    compared = wrong = 0
    for client, figures_of in (("vllm", lambda run: vllm_figures(vllm, run)),
                               ("sglang", lambda run: sglang_figures(sglang, run))):
        more, differ = compare(record, client, figures_of)
        compared, wrong = compared + more, wrong + differ
        assert more >= 12, f"{client}: only {more} figures have a counterpart"
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("vllm", "sglang"))
    requests = len(record["runs"][0]["requests"])
    print(f"{versions}: {compared} figures of {len(record['runs'])} runs of {requests} requests, {wrong} differ")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
