import os
import sys

import openai
import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from server import Server  # noqa: E402

KEY = "key-of-the-client-tests"


@pytest.fixture(scope="session")
def server(request):
    with Server("--api-key", KEY) as running:
        yield running
        # pytest does not tell a fixture that a test has failed; the log is wanted then.
        if request.session.testsfailed:
            print(f"--- the server's log:\n{running.text()}---", flush=True)


@pytest.fixture(scope="session")
def client(server):
    with openai.OpenAI(base_url=server.url + "/v1", api_key=KEY, max_retries=0, timeout=60) as made:
        yield made
