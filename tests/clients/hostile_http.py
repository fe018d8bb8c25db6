#!/usr/bin/env python3
"""Mutated HTTP requests against the running server: it answers 2xx or 4xx or hangs up, and stays healthy.

  hostile_http.py [--requests 10000] [--seed N] [--program build/lapidary]

Every answer is well formed, none is 5xx, none takes 30 s; after each 1,000 requests /health is asked and answers in 100 ms.
Standard library only.
"""
import argparse
import collections
import concurrent.futures
import random
import re
import socket
import sys
import time

from server import PROGRAM, Server

ROUND = 1000
HEALTH_SECONDS = 0.1
ANSWER_SECONDS = 30
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

BODIES = [
    ("/v1/completions", '{"model":"pebble","prompt":"one two","max_tokens":4,"temperature":0.5,"seed":1}'),
    ("/v1/completions", '{"prompt":[[2,300],[2,301]],"max_tokens":2,"n":2,"logprobs":2,"echo":true}'),
    ("/v1/completions", '{"prompt":"a","max_tokens":3,"stream":true,"stream_options":{"include_usage":true}}'),
    ("/v1/chat/completions", '{"messages":[{"role":"user","content":"What is 1 + 2?"}],"max_tokens":8}'),
    ("/v1/chat/completions",
     '{"messages":[{"role":"system","content":"s"},{"role":"user","content":[{"type":"text","text":"hi"}]}],'
     '"tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object","properties":'
     '{"a":{"type":"integer"}}}}}],"max_tokens":8,"stream":true,"top_p":0.9,"stop":["x"],"logprobs":true,"top_logprobs":2}'),
    ("/tokenize", '{"prompt":"Hello there","return_token_strs":true}'),
    ("/detokenize", '{"tokens":[300,301,302]}'),
]
VALUES = ["null", "-1", "0", "1e999", "-0.0", "NaN", "2147483648", "9223372036854775808", '""', '"\\u0000"',
          '"\\ud800"', "[]", "{}", "true", "[[[[]]]]", "[" * 70 + "]" * 70, '"' + "x" * 3000 + '"']
HEADERS = ["Transfer-Encoding: chunked", "Content-Length: -1", "Content-Length: 99999999999", "Expect: 100-continue",
           "Expect: tea", "Content-Encoding: gzip", "Host: evil.example", "Connection: upgrade", "X: " + "y" * 9000,
           "Origin: http://evil.example", "Authorization: Bearer \x7f", "Transfer-Encoding: gzip, chunked", " folded", "No colon"]


def mutated_body(body, rng):
    """Values swapped for bad ones, members dropped or doubled: still mostly JSON."""
    for _ in range(rng.randint(0, 2)):
        at = [i for i, c in enumerate(body) if c == ":"]
        start = rng.choice(at) + 1
        end = start
        while end < len(body) and body[end] not in ",}]":
            end += 1
        body = body[:start] + rng.choice(VALUES) + body[end:]
    return body


def mutated_request(rng):
    path, body = rng.choice(BODIES)
    body = mutated_body(body, rng).encode("utf-8", "replace")
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}", "Content-Type: application/json"]
    if rng.random() < 0.7:
        lines.append("Connection: close")
    if rng.random() < 0.2:
        lines.insert(rng.randint(1, len(lines)), rng.choice(HEADERS))
    message = bytearray("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body)
    for _ in range(rng.choice((0, 0, 1, 1, 2, 4))):
        at, kind = rng.randrange(len(message)), rng.randrange(5)
        if kind == 0:
            message[at] = rng.randrange(256)
        elif kind == 1:
            message[at] ^= 1 << rng.randrange(8)
        elif kind == 2:
            del message[at:at + rng.randint(1, 8)]
        elif kind == 3:
            message[at:at] = message[at:at + rng.randint(1, 40)]
        else:
            message[at:at] = rng.choice((b"\r\n", b"\0", b"\r\n\r\n", b"0\r\n\r\n", b"\xff\xfe", b'"', b"{", b"%00"))
        if not message:
            message = bytearray(b"\r\n")
    return bytes(message)


def is_whole(answer):
    """The first answer has arrived. What a mutation made of the rest of the request is not waited for."""
    head, border, body = answer.removeprefix(CONTINUE).partition(b"\r\n\r\n")
    if not border:
        return False
    length = re.search(rb"\r\nContent-Length: (\d+)", head)
    return len(body) >= int(length[1]) if length else answer.endswith(b"\r\n0\r\n\r\n")


def exchange(port, message, rng):
    """The bytes of the first answer, or of what came before the server hung up."""
    with socket.create_connection(("127.0.0.1", port), timeout=ANSWER_SECONDS) as connection:
        try:
            cut = rng.randrange(len(message)) if rng.random() < 0.2 else len(message)
            connection.sendall(message[:cut])
            if cut < len(message):
                time.sleep(0.001)
                connection.sendall(message[cut:])
        except (BrokenPipeError, ConnectionResetError):
            pass  # refused and closed before all was sent; the answer may still be there
        answer = b""
        # A request that was made incomplete would keep both sides waiting: when nothing has come for a while, the client
        # ends its half. What the server then still owes it may drop.
        connection.settimeout(1)
        half_closed = False
        end = time.monotonic() + ANSWER_SECONDS
        while time.monotonic() < end:
            try:
                part = connection.recv(65536)
            except ConnectionResetError:
                return answer
            except TimeoutError:
                if half_closed:
                    continue
                half_closed = True
                connection.shutdown(socket.SHUT_WR)
                continue
            if not part:
                return answer
            answer += part
            if is_whole(answer):
                return answer
    raise AssertionError(f"no end of the answer after {ANSWER_SECONDS} s: {message!r} {answer[:200]!r}")


def status_of(answer, message):
    answer = answer.removeprefix(CONTINUE)
    if not answer:
        return 0
    parts = answer.split(b" ", 2)
    good = len(parts) == 3 and parts[0] == b"HTTP/1.1" and parts[1].isdigit() and b"\r\n\r\n" in answer
    assert good, f"not an answer in HTTP: {answer[:300]!r} to {message!r}"
    return int(parts[1])


def one(port, seed):
    rng = random.Random(seed)
    message = mutated_request(rng)
    status = status_of(exchange(port, message, rng), message)
    assert status == 0 or 200 <= status < 300 or 400 <= status < 500, f"seed {seed}: status {status} to {message!r}"
    return status


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--program", default=PROGRAM)
    flags = parser.parse_args()
    statuses, slowest_health = collections.Counter(), 0.0
    # The context bounds what a request that lost its max_tokens may generate.
    with Server("--max-model-len", "256", program=flags.program) as server, \
            concurrent.futures.ThreadPoolExecutor(8) as pool:
        for first in range(0, flags.requests, ROUND):
            seeds = range(flags.seed * 10**9 + first, flags.seed * 10**9 + min(first + ROUND, flags.requests))
            statuses.update(pool.map(lambda seed: one(server.port, seed), seeds))
            start = time.monotonic()
            assert server.healthy(), "not healthy"
            slowest_health = max(slowest_health, time.monotonic() - start)
            assert slowest_health <= HEALTH_SECONDS, f"/health took {slowest_health:.3f} s"
    answered = sum(count for status, count in statuses.items() if status)
    print(f"{flags.requests} requests, {answered} answered: {dict(sorted(statuses.items()))}; "
          f"slowest /health {slowest_health * 1000:.1f} ms")
    assert answered > flags.requests / 2 and statuses[200] > 0 and statuses[400] > 0, "the mutations prove nothing"


if __name__ == "__main__":
    sys.exit(main())
