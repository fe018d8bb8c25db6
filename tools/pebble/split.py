"""Checks that no held-out question occurs in the training stream; needs Python alone.

  python3 split.py [--chats 20000]

1. skills.jsonl is what chats.py writes, from held-out keys alone; the training stream draws no such key.
2. No conversation of the file occurs in a sample of whole training chats, message by message, before an answer of its kind: what is held out
   as a question may occur as a request to a declared tool, whose answer is a call.
"""
import argparse
import json
import random

import chats


def said(message):
    """What the template shows of a message in a prompt; thoughts and the ids of calls are not."""
    calls = [[c["function"]["name"], c["function"]["arguments"]] for c in message.get("tool_calls", [])]
    return json.dumps([message["role"], message["content"].strip(), calls], sort_keys=True)


def prompt(lines, is_call):
    return "\n".join(lines + ["a call" if is_call else "an answer"])


def prompts(messages):
    """Every stretch that could be a whole prompt: from the head or a user's turn to before an answer."""
    lines = [said(m) for m in messages]
    starts = [0] + [i for i, m in enumerate(messages) if i and m["role"] == "user"]
    ends = [i for i, m in enumerate(messages) if i and m["role"] == "assistant"]
    return [prompt(lines[start:end], "tool_calls" in messages[end]) for start in starts for end in ends if start < end]


def check(count):
    text = (chats.MODEL / "skills.jsonl").read_text()
    records = [json.loads(line) for line in text.splitlines()]
    assert records == chats.held_out(), "skills.jsonl is not what chats.py writes"
    asked = {prompt([said(m) for m in chats.to_objects(record["messages"])], record["match"] == "tool_call") for record in records}
    rng, found, seen = random.Random("check"), set(), 0
    for _ in range(count):
        messages, _, _ = chats.train_chat(rng)
        asked_there = prompts(messages)
        seen += len(asked_there)
        found |= asked.intersection(asked_there)
    print(f"split: {len(records)} held-out items; {len(found)} of {len(asked)} prompts among {seen} of training")
    assert not found, found


if __name__ == "__main__":
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--chats", type=int, default=20000)
    check(ap.parse_args().chats)
