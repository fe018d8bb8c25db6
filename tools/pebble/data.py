"""Token rows for training: chats rendered, tokenised, masked and packed.

A row is int16: the token id, plus bit 12 where the token is the model's to say (the loss counts there).
"""
import os
import pathlib
import random
import subprocess
import sys
import time

import numpy as np
import tokenizers

import chats

SAY = 1 << 12
ID_BITS = SAY - 1


class Encoder:
    """Chat to row pieces."""

    def __init__(self):
        self.tokenizer = tokenizers.Tokenizer.from_file(str(chats.MODEL / "tokenizer.json"))
        one = lambda t: self.tokenizer.token_to_id(t)
        self.turn, self.end, self.channel = one("<|turn>"), one("<turn|>"), one("<|channel>")
        self.response, self.response_end, self.newline = one("<|tool_response>"), one("<tool_response|>"), one("\n")
        self.model = self.tokenizer.encode("model").ids

    def encode(self, text):
        return self.tokenizer.encode(text).ids

    def said(self, ids, thinking):
        """1 where the model speaks: answers with their `<turn|>`, calls with the `<|tool_response>` that ends them.

        With thinking on only what follows the last thought begins counts: earlier turns show no thoughts.
        """
        marks, speaking, i = np.zeros(len(ids), np.int16), False, 0
        while i < len(ids):
            t = ids[i]
            if t == self.turn:
                j = ids.index(self.newline, i)
                speaking = ids[i + 1:j] == self.model
                i = j + 1
                continue
            if speaking:
                marks[i] = 1
            if t == self.end:
                speaking = False
            elif t == self.response and speaking and self.response_end in ids[i:]:
                j = ids.index(self.response_end, i)
                i = j + 1
                continue
            i += 1
        if thinking:
            marks[:len(ids) - 1 - ids[::-1].index(self.channel)] = 0
        return marks

    def row(self, chat):
        ids = self.encode(chats.render(*chat))
        return np.array(ids, np.int16) | self.said(ids, chat[2]) * np.int16(SAY)


def pack(encoder, rng, make, rows, length):
    """Rows of whole chats; what does not fit starts the next row; the rest of a row is padding."""
    out, pending = np.zeros((rows, length), np.int16), None
    for r in range(rows):
        at = 0
        while True:
            piece = pending if pending is not None else encoder.row(make(rng))
            pending = None
            if len(piece) > length:
                continue
            if at + len(piece) > length:
                pending = piece
                break
            out[r, at:at + len(piece)] = piece
            at += len(piece)
    return out


def work(folder, seed, kind, rows, length, stop):
    os.nice(10)
    encoder, n = Encoder(), 0

    def mostly_long(rng):
        return chats.long_chat(rng, length) if rng.random() < 0.75 else chats.train_chat(rng)

    make = mostly_long if kind == "long" else chats.train_chat
    while time.time() < stop:
        name = pathlib.Path(folder) / f"{kind}.{seed}.{n}.npy"
        temporary = name.with_suffix(".part")
        with open(temporary, "wb") as f:
            np.save(f, pack(encoder, random.Random(f"{seed} {n} {kind}"), make, rows, length))
        os.rename(temporary, name)
        n += 1


def start_workers(folder, seed, seconds, short, long, length, rows):
    """Processes that write shards of `rows` rows into `folder` until `seconds` have passed."""
    pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
    environment = dict(os.environ, TOKENIZERS_PARALLELISM="false", OMP_NUM_THREADS="1")
    return [subprocess.Popen([sys.executable, __file__, str(folder), str(seed * 1000 + i), kind, str(rows), str(length),
                              str(time.time() + seconds)], env=environment)
            for i, kind in enumerate(["short"] * short + ["long"] * long)]


if __name__ == "__main__":
    work(sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), int(sys.argv[5]), float(sys.argv[6]))
