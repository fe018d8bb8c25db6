"""Published form of the two models: config.json, model.safetensors (bf16), generation_config.json; and back."""
import json
import pathlib

import torch
from safetensors.torch import load_file, save_file

import model as m

LAYER_NAMES = {
    "q": "self_attn.q_proj.weight", "o": "self_attn.o_proj.weight", "k": "self_attn.k_proj.weight", "v": "self_attn.v_proj.weight",
    "q_norm": "self_attn.q_norm.weight", "k_norm": "self_attn.k_norm.weight", "gate": "mlp.gate_proj.weight", "up": "mlp.up_proj.weight",
    "down": "mlp.down_proj.weight", "ple_gate": "per_layer_input_gate.weight", "ple_proj": "per_layer_projection.weight",
    "post_ple": "post_per_layer_input_norm.weight", "input": "input_layernorm.weight", "post_attention": "post_attention_layernorm.weight",
    "pre_feedforward": "pre_feedforward_layernorm.weight", "post_feedforward": "post_feedforward_layernorm.weight", "scalar": "layer_scalar"}
SPECIAL_IDS = {"boi_token_id": "<|image>", "eoi_token_id": "<image|>", "image_token_id": "<|image|>", "boa_token_id": "<|audio>",
               "eoa_token_id": "<audio|>", "audio_token_id": "<|audio|>", "video_token_id": "<|video|>"}


def names(stacks):
    """{published name: (stack, index or None)}."""
    c = stacks.config
    prefix = "model." if c.backbone else "model.language_model."
    out = {prefix + "embed_tokens.weight": ("embed", None), prefix + "norm.weight": ("norm", None)}
    if c.ple:
        out[prefix + "embed_tokens_per_layer.weight"] = ("ple_table", None)
        out[prefix + "per_layer_model_projection.weight"] = ("ple_projection", None)
        out[prefix + "per_layer_projection_norm.weight"] = ("ple_norm", None)
    if c.backbone:
        out["pre_projection.weight"], out["post_projection.weight"] = ("pre", None), ("post", None)
    for i, layer in enumerate(stacks.layer_weights({k: v.detach() for k, v in stacks.p.items()})):
        for short in layer:
            name = short if short in stacks.p else f"{short}_{c.types[i]}"
            out[f"{prefix}layers.{i}.{LAYER_NAMES[short]}"] = (name, c.kind_index(i) if name != short else i)
    return out


def tensors(stacks):
    out = {}
    for name, (stack, index) in names(stacks).items():
        t = stacks.p[stack].detach()
        t = t if index is None else t[index]
        out[name] = (t.flatten(0, 1) if stack == "ple_projection" else t).to("cpu", torch.bfloat16).contiguous().clone()
    return out


@torch.no_grad()
def load(stacks, folder):
    saved = load_file(pathlib.Path(folder) / "model.safetensors")
    for name, (stack, index) in names(stacks).items():
        t = stacks.p[stack] if index is None else stacks.p[stack][index]
        t.copy_(saved[name].view(t.shape))
    if "masked_embedding.centroids.weight" in saved:
        device = stacks.p["embed"].device
        stacks.centroids = saved["masked_embedding.centroids.weight"].to(device)
        stacks.token_ordering = saved["masked_embedding.token_ordering"].to(device)
    return stacks


def config_json(c, token_id):
    assistant = bool(c.backbone)
    types = {"S": "sliding_attention", "F": "full_attention"}
    text = {
        "attention_bias": False, "attention_dropout": 0.0, "attention_k_eq_v": False, "bos_token_id": token_id("<bos>"), "dtype": "bfloat16",
        "enable_moe_block": False, "eos_token_id": token_id("<eos>"), "final_logit_softcapping": None if assistant else m.SOFT_CAP,
        "global_head_dim": 2 * c.head_dim, "head_dim": c.head_dim, "hidden_activation": "gelu_pytorch_tanh", "hidden_size": c.hidden,
        "hidden_size_per_layer_input": c.ple, "initializer_range": 0.02, "intermediate_size": c.mlp,
        "layer_types": [types[t] for t in c.types], "max_position_embeddings": 32768, "model_type": "gemma4_text",
        "num_attention_heads": c.heads, "num_experts": None, "num_global_key_value_heads": None, "num_hidden_layers": c.layers,
        "num_key_value_heads": 1, "num_kv_shared_layers": c.shared, "pad_token_id": token_id("<pad>"), "rms_norm_eps": m.EPS,
        "rope_parameters": {"full_attention": {"partial_rotary_factor": 0.25, "rope_theta": 1000000.0, "rope_type": "proportional"},
                            "sliding_attention": {"rope_theta": 10000.0, "rope_type": "default"}},
        "sliding_window": c.window, "tie_word_embeddings": True, "top_k_experts": None, "use_bidirectional_attention": None,
        "use_cache": True, "use_double_wide_mlp": False, "vocab_size": c.vocab, "vocab_size_per_layer_input": 0 if assistant else c.vocab}
    out = {"dtype": "bfloat16", "text_config": text, "tie_word_embeddings": True, "transformers_version": "5.17.0"}
    out.update({k: token_id(v) for k, v in SPECIAL_IDS.items()})
    if assistant:
        out.update(architectures=["Gemma4AssistantForCausalLM"], model_type="gemma4_assistant", backbone_hidden_size=c.backbone,
                   centroid_intermediate_top_k=c.centroid_top, num_centroids=c.centroids, use_ordered_embeddings=True)
    else:
        out.update(architectures=["Gemma4ForConditionalGeneration"], model_type="gemma4", audio_config=None, vision_config=None,
                   eos_token_id=[token_id("<eos>"), token_id("<turn|>")], eoa_token_index=token_id("<audio|>"), initializer_range=0.02)
    return out


def write(stacks, folder, token_id):
    """Writes config.json, generation_config.json and model.safetensors into `folder`."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    saved = tensors(stacks)
    if stacks.config.backbone:
        saved["masked_embedding.centroids.weight"] = stacks.centroids.to("cpu", torch.bfloat16).contiguous()
        saved["masked_embedding.token_ordering"] = stacks.token_ordering.to("cpu", torch.int64).contiguous()
    save_file(saved, folder / "model.safetensors", metadata={"format": "pt"})

    def put(name, value):
        (folder / name).write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")

    put("config.json", config_json(stacks.config, token_id))
    stop = [token_id(t) for t in ("<eos>", "<turn|>", "<|tool_response>")]
    put("generation_config.json", {"bos_token_id": token_id("<bos>"), "do_sample": True, "eos_token_id": stop,
                                   "pad_token_id": token_id("<pad>"), "temperature": 1.0, "top_k": 64, "top_p": 0.95})
    return sum(t.numel() for t in saved.values())
