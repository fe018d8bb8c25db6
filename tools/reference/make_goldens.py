#!/usr/bin/env python3
"""What transformers computes for a checkpoint, in float32 on the stored bf16 weights: goldens.safetensors
for `lapidary verify`.

  make_goldens.py DIR [--assistant DIR-assistant] [--out DIR/goldens.safetensors]
                      [--lengths 1,25,70] [--greedy 12] [--drafts 3] [--seed 7]

Keys, for prompt P (i32: ids, greedy, tokens; f32 the rest):
  text.P.ids [L]  text.P.logits [L,V]  text.P.hidden [L,D] after the final norm
  text.P.greedy [G]  text.P.greedy_margin [G] first minus second logit
  draft.P.{Lm1,Lm2}.tokens [K] .logits [K,V]: a burst after the prompt and its first greedy token; position
      index of that token (Lm1) or of the one before it (Lm2)
The embedding factor is rounded to bf16, as it is in bf16 inference. The distance of these values from the
same computed in float64 is printed: where it nears a tolerance, the values say nothing at that tolerance.
"""
import argparse
import pathlib

import numpy as np
import torch
from safetensors.numpy import save_file
from transformers import Gemma4AssistantForCausalLM, Gemma4ForConditionalGeneration

from sizes import FIRST_TEXT_ID, NUM_MEDIA_IDS


def load(kind, folder):
    # "eager": the fast forms of attention and experts want widths of whole vectors.
    model = kind.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager",
                                 experts_implementation="eager").eval()
    for module in model.modules():
        if hasattr(module, "scalar_embed_scale"):
            rounded = torch.tensor(module.scalar_embed_scale).bfloat16().float()
            module.embed_scale.copy_(rounded)
    return model


def array(tensor):
    return np.ascontiguousarray(tensor.detach().float().numpy())


def greedy(model, ids, count):
    """Continues without a cache, so that nothing but the forward pass is asked."""
    tokens, margins = [], []
    for _ in range(count):
        best = model(input_ids=torch.tensor([ids + tokens]), use_cache=False).logits[0, -1].topk(2)
        margins.append(float(best.values[0] - best.values[1]))
        tokens.append(int(best.indices[0]))
    return np.array(tokens, np.int32), np.array(margins, np.float32)


def draft(model, assistant, ids, first, count):
    """{tag: (tokens, logits)} of a burst that reads the target's K and V of `ids`."""
    inner = model.model.language_model(input_ids=torch.tensor([ids]), use_cache=False,
                                       return_shared_kv_states=True)
    window = model.config.get_text_config().sliding_window
    kv = dict(inner.shared_kv_states)
    kv["sliding_attention"] = tuple(x[:, :, -window:] for x in kv["sliding_attention"])
    out = {}
    for tag, position in (("Lm1", len(ids)), ("Lm2", len(ids) - 1)):
        token, state, tokens, logits = first, inner.last_hidden_state[:, -1:], [], []
        for _ in range(count):
            embedded = model.get_input_embeddings()(torch.tensor([[token]]))
            step = assistant(inputs_embeds=torch.cat([embedded, state], -1), shared_kv_states=kv,
                             position_ids=torch.tensor([[position]]), use_cache=False)
            token, state = int(step.logits[0, 0].argmax()), step.last_hidden_state
            tokens.append(token)
            logits.append(array(step.logits[0, 0]))
        out[tag] = (np.array(tokens, np.int32), np.stack(logits))
    return out


def compute(model, assistant, prompts, num_greedy, num_drafts):
    goldens = {}
    for p, ids in enumerate(prompts):
        whole = torch.tensor([ids])
        goldens[f"text.{p}.ids"] = np.array(ids, np.int32)
        goldens[f"text.{p}.logits"] = array(model(input_ids=whole, use_cache=False).logits[0])
        inner = model.model.language_model(input_ids=whole, use_cache=False)
        goldens[f"text.{p}.hidden"] = array(inner.last_hidden_state[0])
        tokens, margins = greedy(model, ids, num_greedy)
        goldens[f"text.{p}.greedy"], goldens[f"text.{p}.greedy_margin"] = tokens, margins
        if assistant is None:
            continue
        for tag, (drafts, logits) in draft(model, assistant, ids, int(tokens[0]), num_drafts).items():
            goldens[f"draft.{p}.{tag}.tokens"] = drafts
            goldens[f"draft.{p}.{tag}.logits"] = logits
    return goldens


@torch.no_grad()
def make(folder, assistant_folder, out, lengths, num_greedy=12, num_drafts=3, seed=7):
    """Writes the goldens; returns (smallest greedy margin, largest distance of float32 from float64)."""
    model = load(Gemma4ForConditionalGeneration, folder)
    assistant = load(Gemma4AssistantForCausalLM, assistant_folder) if assistant_folder else None
    last_text_id = model.config.get_text_config().vocab_size - NUM_MEDIA_IDS
    rng = np.random.default_rng(seed)
    prompts = [[2] + rng.integers(FIRST_TEXT_ID, last_text_id, length - 1).tolist()
               for length in lengths]
    goldens = compute(model, assistant, prompts, num_greedy, num_drafts)
    save_file(goldens, out)
    exact = compute(model.double(), assistant.double() if assistant else None, prompts, 1, num_drafts)
    rounding = max(float(np.abs(goldens[key] - exact[key]).max()) for key in exact
                   if key.endswith(("logits", "hidden")))
    return min(float(v.min()) for k, v in goldens.items() if k.endswith("margin")), rounding


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--assistant")
    parser.add_argument("--out")
    parser.add_argument("--lengths", default="1,25,70")
    parser.add_argument("--greedy", type=int, default=12)
    parser.add_argument("--drafts", type=int, default=3)
    parser.add_argument("--seed", type=int, default=7)
    flags = parser.parse_args()
    out = flags.out or pathlib.Path(flags.checkpoint) / "goldens.safetensors"
    lengths = [int(length) for length in flags.lengths.split(",")]
    margin, rounding = make(flags.checkpoint, flags.assistant, out, lengths, flags.greedy,
                            flags.drafts, flags.seed)
    print(f"{out}: smallest greedy margin {margin:.4f}, float32 is {rounding:.1e} from float64")


if __name__ == "__main__":
    main()
