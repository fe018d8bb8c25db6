"""One question with its right answer, and the rule that splits training from held-out."""
import dataclasses
import hashlib

HELD_OUT_ONE_IN = 20


@dataclasses.dataclass
class Item:
    """A chat that ends in the answer to be given.

    `key` names the question itself (operands, words), not its punctuation: an item whose key is held out never
    occurs in training in any form. `thought` is what the thinking channel holds when thinking is on; with `plain` set
    to None the question is only asked with thinking on.
    """
    skill: str
    key: str
    question: str
    answer: str
    expected: str = ""
    match: str = "contains"
    thought: str = ""
    before: list = dataclasses.field(default_factory=list)  # messages before the question
    tools: list = dataclasses.field(default_factory=list)
    calls: list = dataclasses.field(default_factory=list)  # (name, arguments) when the answer is a call
    plain: str | None = ""  # answer with thinking off; "" = the same answer
    expected_plain: str = ""  # expected with thinking off; "" = the same

    def held_out(self):
        digest = hashlib.blake2b(self.key.encode(), digest_size=4).digest()
        return int.from_bytes(digest, "little") % HELD_OUT_ONE_IN == 0


def join_and(words):
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]


def number_calls(calls, start=1):
    """OpenAI form of (name, arguments) pairs; arguments stay objects, as the chat template wants them."""
    return [{"id": f"call_{start + i}", "type": "function", "function": {"name": n, "arguments": a}}
            for i, (n, a) in enumerate(calls)]
