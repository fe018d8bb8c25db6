#!/usr/bin/env python3
"""What transformers computes for a checkpoint, in float32 on the stored bf16 weights: goldens.safetensors
for `lapidary verify`.

  make_goldens.py DIR [--assistant DIR-assistant] [--out DIR/goldens.safetensors]
                      [--lengths 1,25,70] [--greedy 12] [--drafts 3] [--seed 7] [--bf16] [--device cuda]

Keys, for prompt P (i32: ids, rows, greedy, greedy_top, tokens; bf16: the keys of that name; f32 the rest):
  text.P.ids [L]  text.P.logits [L,V]  text.P.hidden [L,D] after the final norm
  text.P.greedy [G]  text.P.greedy_margin [G] first minus second logit
  draft.P.{Lm1,Lm2}.tokens [K] .logits [K,V]: a burst after the prompt and its first greedy token; position
      index of that token (Lm1) or of the one before it (Lm2)
With --bf16 also what transformers makes of the same rows in bf16, by which a run in bf16 is judged:
  text.P.bf16_logits [L,V]  text.P.greedy_top [G,5] the best five in f32  draft.P.{Lm1,Lm2}.bf16_logits [K,V]
With --last-rows R only the last R rows of a prompt: text.P.rows [R] says which; there is no hidden then.

The embedding factor is rounded to bf16, as it is in bf16 inference. Without --bf16 the distance of these
values from the same computed in float64 is printed: where it nears a tolerance, they say nothing at it.
"""
import argparse
import dataclasses
import pathlib

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import Gemma4AssistantForCausalLM, Gemma4ForConditionalGeneration

from sizes import FIRST_TEXT_ID, Sizes, media_ids

NUM_TOP = 5


def media_of(config):
    """Ids that stand for media, which transformers embeds as padding."""
    ids = [getattr(config, name, None) for name in media_ids(Sizes("dense"))]
    return sorted({id for id in ids if id is not None and id < config.get_text_config().vocab_size})


@dataclasses.dataclass
class Asked:
    lengths: list
    greedy: int = 12
    drafts: int = 3
    seed: int = 7
    last_rows: int = 0  # 0: all
    cached: bool = False  # greedy tokens from the KV cache: for prompts too long to repeat
    device: str = "cpu"

    def prompts(self, config):
        rng = np.random.default_rng(self.seed)
        text = np.setdiff1d(np.arange(FIRST_TEXT_ID, config.get_text_config().vocab_size), media_of(config))
        return [[2] + rng.choice(text, length - 1).tolist() for length in self.lengths]

    def rows(self, length):
        return torch.arange(max(0, length - self.last_rows) if self.last_rows else 0, length)

    def tensor(self, ids):
        return torch.tensor([ids], device=self.device)


def round_embed_scales(model):
    for module in model.modules():
        if hasattr(module, "scalar_embed_scale"):
            module.embed_scale.copy_(torch.tensor(module.scalar_embed_scale).bfloat16())


def load(kind, folder, dtype=torch.float32, device="cpu"):
    # "eager": the fast forms of attention and experts want widths of whole vectors.
    model = kind.from_pretrained(folder, dtype=dtype, attn_implementation="eager",
                                 experts_implementation="eager").eval().to(device)
    round_embed_scales(model)
    return model


def array(tensor, dtype=torch.float32):
    return tensor.detach().to("cpu", dtype).contiguous()


def ints(values):
    return torch.as_tensor(values, dtype=torch.int32)


def logits_of(model, asked, ids, dtype):
    rows = asked.rows(len(ids)).to(asked.device)
    return array(model(input_ids=asked.tensor(ids), use_cache=False, logits_to_keep=rows).logits[0], dtype)


def greedy(model, asked, ids):
    """Tokens, margins, best five; they end before a token that stands for media, which transformers would not read as
    one. Without a cache nothing but the forward pass is asked."""
    tokens, margins, tops, past = [], [], [], None
    media = media_of(model.config)
    for _ in range(asked.greedy):
        fed = ids + tokens if past is None else tokens[-1:]
        out = model(input_ids=asked.tensor(fed), use_cache=asked.cached, past_key_values=past, logits_to_keep=1)
        past = out.past_key_values if asked.cached else None
        best = out.logits[0, -1].topk(NUM_TOP)
        if int(best.indices[0]) in media:
            break
        margins.append(float(best.values[0] - best.values[1]))
        tops.append(best.indices.tolist())
        tokens.append(int(best.indices[0]))
    return ints(tokens), torch.tensor(margins), ints(tops).reshape(-1, NUM_TOP)


def draft(model, assistant, asked, ids, first, fed=None):
    """{tag: (tokens, logits)} of a burst that reads the target's K and V of `ids`. It goes on with its own
    tokens, or with those of `fed`."""
    inner = model.model.language_model(input_ids=asked.tensor(ids), use_cache=False,
                                       return_shared_kv_states=True)
    window = model.config.get_text_config().sliding_window
    kv = dict(inner.shared_kv_states)
    kv["sliding_attention"] = tuple(x[:, :, -window:] for x in kv["sliding_attention"])
    out = {}
    for tag, position in (("Lm1", len(ids)), ("Lm2", len(ids) - 1)):
        token, state, tokens, logits = first, inner.last_hidden_state[:, -1:], [], []
        for i in range(asked.drafts):
            embedded = model.get_input_embeddings()(asked.tensor([token]))
            step = assistant(inputs_embeds=torch.cat([embedded, state], -1), shared_kv_states=kv,
                             position_ids=asked.tensor([position]), use_cache=False)
            tokens.append(int(step.logits[0, 0].argmax()))
            logits.append(step.logits[0, 0])
            token, state = int(fed[tag][i]) if fed else tokens[-1], step.last_hidden_state
        out[tag] = (ints(tokens), torch.stack(logits))
    return out


def in_f32(model, assistant, asked, prompts):
    goldens = {}
    for p, ids in enumerate(prompts):
        goldens[f"text.{p}.ids"] = ints(ids)
        goldens[f"text.{p}.logits"] = logits_of(model, asked, ids, torch.float32)
        if asked.last_rows:
            goldens[f"text.{p}.rows"] = asked.rows(len(ids)).int()
        else:
            inner = model.model.language_model(input_ids=asked.tensor(ids), use_cache=False)
            goldens[f"text.{p}.hidden"] = array(inner.last_hidden_state[0])
        tokens, margins, tops = greedy(model, asked, ids)
        goldens[f"text.{p}.greedy"], goldens[f"text.{p}.greedy_margin"] = tokens, margins
        goldens[f"text.{p}.greedy_top"] = tops
        if assistant is None or len(tokens) == 0:
            continue
        for tag, (drafts, logits) in draft(model, assistant, asked, ids, int(tokens[0])).items():
            goldens[f"draft.{p}.{tag}.tokens"] = drafts
            goldens[f"draft.{p}.{tag}.logits"] = array(logits)
    return goldens


def in_bf16(model, assistant, asked, prompts, goldens=None):
    """`goldens`: of float32, whose tokens the drafts are given; without an assistant none are needed."""
    out = {}
    for p, ids in enumerate(prompts):
        out[f"text.{p}.bf16_logits"] = logits_of(model, asked, ids, torch.bfloat16)
        if assistant is None or len(goldens[f"text.{p}.greedy"]) == 0:
            continue
        fed = {tag: goldens[f"draft.{p}.{tag}.tokens"] for tag in ("Lm1", "Lm2")}
        first = int(goldens[f"text.{p}.greedy"][0])
        for tag, (_, logits) in draft(model, assistant, asked, ids, first, fed).items():
            out[f"draft.{p}.{tag}.bf16_logits"] = array(logits, torch.bfloat16)
    return out


def both(folder, assistant_folder, dtype, device):
    return (load(Gemma4ForConditionalGeneration, folder, dtype, device),
            load(Gemma4AssistantForCausalLM, assistant_folder, dtype, device) if assistant_folder else None)


@torch.no_grad()
def make(folder, assistant_folder, out, asked, bf16=False):
    """Writes the goldens; returns (smallest greedy margin, largest distance of float32 from float64)."""
    model, assistant = both(folder, assistant_folder, torch.float32, asked.device)
    prompts = asked.prompts(model.config)
    goldens = in_f32(model, assistant, asked, prompts)
    margin = min(float(m) for k, v in goldens.items() if k.endswith("margin") for m in v)
    if bf16:
        save_file(goldens | in_bf16(*both(folder, assistant_folder, torch.bfloat16, asked.device), asked, prompts,
                                    goldens), out)
        return margin, 0.0
    save_file({key: value for key, value in goldens.items() if not key.endswith("top")}, out)
    exact = in_f32(model.double(), assistant.double() if assistant else None,
                   dataclasses.replace(asked, greedy=1), prompts)
    rounding = max(float((goldens[key] - exact[key]).abs().max()) for key in exact
                   if key.endswith(("logits", "hidden")))
    return margin, rounding


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
    parser.add_argument("--last-rows", type=int, default=0)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--device", default="cpu")
    flags = parser.parse_args()
    out = flags.out or pathlib.Path(flags.checkpoint) / "goldens.safetensors"
    asked = Asked([int(length) for length in flags.lengths.split(",")], flags.greedy, flags.drafts, flags.seed,
                  flags.last_rows, cached=flags.last_rows > 0, device=flags.device)
    margin, rounding = make(flags.checkpoint, flags.assistant, out, asked, flags.bf16)
    print(f"{out}: smallest greedy margin {margin:.4f}" +
          ("" if flags.bf16 else f", float32 is {rounding:.1e} from float64"))


if __name__ == "__main__":
    main()
