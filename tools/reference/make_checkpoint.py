#!/usr/bin/env python3
"""A small random Gemma 4 checkpoint, target or assistant, as transformers (>= 5.17) saves it or in the
published form.

  make_checkpoint.py --family edge --out DIR [--seed 1] [--hidden 32 ...]     the target
  make_checkpoint.py --family edge --out DIR-assistant --assistant            its drafter
  ... --published         config.json with global_head_dim; K and V also on KV-shared layers
  ... --shard-kb 64       several safetensors files with an index

Every size of sizes.py is an option. A tensor's numbers depend on the seed and its name only.
"""
import argparse
import dataclasses
import json
import math
import pathlib
import zlib

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import (Gemma4AssistantConfig, Gemma4AssistantForCausalLM, Gemma4Config,
                          Gemma4ForConditionalGeneration)

import sizes as sz

# First match of the name decides: (low, high) of a uniform tensor.
RANGES = (
    ("layer_scalar", (0.6, 1.1)),
    ("k_norm", (0.5, 1.0)),  # divided by the fourth root of the head size: scores are not scaled
    ("q_norm", (0.8, 1.2)),
    (".input_min", (-4.0, -2.0)), (".output_min", (-4.0, -2.0)),
    (".input_max", (2.0, 4.0)), (".output_max", (2.0, 4.0)),
    ("language_model.norm.weight", (3.0, 5.0)),
    ("post_attention_layernorm", (0.5, 1.5)), ("post_feedforward_layernorm", (0.5, 1.5)),
    ("norm", (0.5, 1.5)), ("router.scale", (0.5, 1.5)), ("per_expert_scale", (0.5, 1.5)),
    ("std_scale", (0.1, 0.3)),
)


def values(name, shape, seed):
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    if name.endswith("token_ordering"):
        return torch.from_numpy(rng.permutation(shape[0]))
    for part, (low, high) in RANGES:
        if part in name:
            numbers = rng.uniform(low, high, shape)
            if part == "k_norm":
                numbers /= math.sqrt(math.sqrt(shape[0]))
            break
    else:  # a linear keeps the size of what it reads
        numbers = rng.standard_normal(shape) / math.sqrt(shape[-1] if shape else 1)
    return torch.from_numpy(np.asarray(numbers, np.float32)).bfloat16()


def published_config(config, text):
    """The saved config.json with full layers described as the published files do."""
    del config["text_config"]["per_layer_config"]
    for key in ("global_head_dim", "num_global_key_value_heads"):
        config["text_config"][key] = text[key]
    config["eos_token_id"] = [1, 106 % text["vocab_size"]]
    return config


def unused_kv(text, seed):
    """K and V of KV-shared layers: published files hold them and nothing reads them."""
    out = {}
    first = text["num_hidden_layers"] - text["num_kv_shared_layers"]
    for i in range(first, text["num_hidden_layers"]):
        full = text["layer_types"][i] == "full_attention"
        width = text["global_head_dim"] if full else text["head_dim"]
        prefix = f"model.language_model.layers.{i}.self_attn."
        for name in ("k_proj", "v_proj"):
            shape = (text["num_key_value_heads"] * width, text["hidden_size"])
            out[f"{prefix}{name}.weight"] = values(f"{prefix}{name}.weight", shape, seed)
        out[f"{prefix}k_norm.weight"] = values(f"{prefix}k_norm.weight", (width,), seed)
    return out


def save_tensors(folder, tensors, shard_bytes):
    for old in folder.glob("*.safetensors*"):
        old.unlink()
    shards, used = [{}], 0
    for name in sorted(tensors):
        size = tensors[name].numel() * tensors[name].element_size()
        if shard_bytes and shards[-1] and used + size > shard_bytes:
            shards.append({})
            used = 0
        shards[-1][name] = tensors[name]
        used += size
    if len(shards) == 1:
        save_file(shards[0], folder / "model.safetensors", metadata={"format": "pt"})
        return 1
    weight_map = {}
    for i, shard in enumerate(shards):
        file = f"model-{i + 1:05}-of-{len(shards):05}.safetensors"
        save_file(shard, folder / file, metadata={"format": "pt"})
        weight_map |= {name: file for name in shard}
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1))
    return len(shards)


def make(sizes, folder, seed, assistant=False, published=False, shard_kb=0, rule=values):
    folder = pathlib.Path(folder)
    if assistant:
        text = sz.draft_text(sizes)
        model = Gemma4AssistantForCausalLM(Gemma4AssistantConfig(
            text_config=text, backbone_hidden_size=sizes.hidden,
            use_ordered_embeddings=sizes.traits["ple"], num_centroids=sizes.centroids,
            centroid_intermediate_top_k=sizes.centroid_top_k))
    else:
        text = sz.target_text(sizes)
        model = Gemma4ForConditionalGeneration(Gemma4Config(
            text_config=text, vision_config=sz.vision(sizes), audio_config=sz.audio(sizes),
            tie_word_embeddings=True, **sz.media_ids(sizes)))
    model.to(torch.bfloat16).save_pretrained(folder)
    saved = load_file(folder / "model.safetensors")
    tensors = {name: rule(name, tuple(t.shape), seed) for name, t in saved.items()}
    if published:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(published_config(config, text), indent=2))
        if not assistant:
            tensors |= unused_kv(text, seed)
    return save_tensors(folder, tensors, shard_kb * 1024)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--assistant", action="store_true")
    parser.add_argument("--published", action="store_true")
    parser.add_argument("--shard-kb", type=int, default=0)
    parser.add_argument("--family", choices=sz.FAMILIES, required=True)
    for field in dataclasses.fields(sz.Sizes)[1:]:
        if field.type is bool:
            parser.add_argument(f"--no-{field.name}", dest=field.name, action="store_false")
        else:
            parser.add_argument("--" + field.name.replace("_", "-"), type=field.type,
                                default=field.default)
    flags = vars(parser.parse_args())
    how = {key: flags.pop(key) for key in ("seed", "assistant", "published", "shard_kb")}
    folder = flags.pop("out")
    print(f"{folder}: {make(sz.Sizes(**flags), folder, **how)} file(s)")


if __name__ == "__main__":
    main()
