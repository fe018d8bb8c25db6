"""The official `openai` package against the running server with the shipped model."""
import asyncio
import json
import math

import openai
import pytest

from conftest import KEY

MODEL = "pebble"
SUM = [{"role": "user", "content": "What is 12 + 30?"}]
LIGHT_TOOL = {"type": "function", "function": {
    "name": "set_light", "description": "Turn a light on or off.",
    "parameters": {"type": "object",
                   "properties": {"room": {"type": "string"}, "on": {"type": "boolean"}},
                   "required": ["room", "on"]}}}
LIGHT = [{"role": "user", "content": "Turn on the light in the kitchen."}]


def chat(client, messages=None, **fields):
    return client.chat.completions.create(model=MODEL, messages=messages or SUM,
                                          **{"temperature": 0, "max_tokens": 64, **fields})


COUNT = "<|turn>user\nCount from 3 to 9.<turn|>\n<|turn>model\n"


def complete(client, prompt=COUNT, **fields):
    return client.completions.create(model=MODEL, prompt=prompt,
                                     **{"temperature": 0, "max_tokens": 12, **fields})


# Models.

def test_models(client):
    listed = client.models.list().data
    assert [model.id for model in listed] == [MODEL]
    assert client.models.retrieve(MODEL).max_model_len == 32768


# Chat.

def test_chat_answers(client):
    reply = chat(client)
    choice = reply.choices[0]
    assert reply.object == "chat.completion" and reply.model == MODEL
    assert "42" in choice.message.content and choice.message.role == "assistant"
    assert choice.finish_reason == "stop" and choice.message.tool_calls is None
    usage = reply.usage
    assert usage.prompt_tokens > 0 and usage.completion_tokens > 0
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


def test_chat_streams_what_it_answers_at_once(client):
    chunks = list(chat(client, stream=True))
    assert chunks[0].choices[0].delta.role == "assistant"
    joined = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert joined == chat(client).choices[0].message.content
    assert [c.choices[0].finish_reason for c in chunks if c.choices[0].finish_reason] == ["stop"]
    assert all(chunk.usage is None for chunk in chunks)
    assert len({chunk.id for chunk in chunks}) == 1


def test_chat_stream_with_usage(client):
    chunks = list(chat(client, stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].choices == [] and chunks[-1].usage == chat(client).usage
    assert all(chunk.usage is None and chunk.choices for chunk in chunks[:-1])


def test_chat_thinks(client):
    fields = {"extra_body": {"chat_template_kwargs": {"enable_thinking": True}}, "max_tokens": 400}
    message = chat(client, **fields).choices[0].message
    assert message.reasoning and "42" in message.content
    assert chat(client, reasoning_effort="high", max_tokens=400).choices[0].message == message
    streamed = "".join(getattr(chunk.choices[0].delta, "reasoning", None) or ""
                       for chunk in chat(client, stream=True, **fields))
    assert streamed == message.reasoning


def test_chat_logprobs(client):
    choice = chat(client, logprobs=True, top_logprobs=4).choices[0]
    entries = choice.logprobs.content
    assert "".join(e.token for e in entries if e.bytes).startswith(choice.message.content)
    for entry in entries:
        best = [top.logprob for top in entry.top_logprobs]
        assert len(best) == 4 and best == sorted(best, reverse=True)
        assert entry.logprob == best[0] and entry.token == entry.top_logprobs[0].token
        assert sum(math.exp(logprob) for logprob in best) <= 1.0001
    streamed = [entry for chunk in chat(client, logprobs=True, top_logprobs=4, stream=True)
                if chunk.choices[0].logprobs for entry in chunk.choices[0].logprobs.content]
    assert streamed == entries


def test_chat_without_logprobs_has_none(client):
    assert chat(client).choices[0].logprobs is None


def test_chat_stops_at_a_stop_string(client):
    whole = chat(client).choices[0].message.content
    reply = chat(client, stop=["2"]).choices[0]
    assert reply.message.content == whole[:whole.index("2")] and reply.finish_reason == "stop"
    streamed = "".join(chunk.choices[0].delta.content or ""
                       for chunk in chat(client, stop="2", stream=True))
    assert streamed == reply.message.content


def test_chat_length(client):
    reply = chat(client, max_tokens=1)
    assert reply.choices[0].finish_reason == "length" and reply.usage.completion_tokens == 1
    assert chat(client, max_tokens=openai.omit, max_completion_tokens=1).choices == reply.choices


def test_chat_many_choices_and_seed(client):
    fields = {"n": 4, "temperature": 20, "seed": 7, "extra_body": {"top_k": 0}}
    choices = chat(client, **fields).choices
    texts = [choice.message.content for choice in choices]
    assert [choice.index for choice in choices] == [0, 1, 2, 3]
    assert len(set(texts)) > 1
    assert [choice.message.content for choice in chat(client, **fields).choices] == texts
    streamed = [""] * 4
    for chunk in chat(client, stream=True, **fields):
        for choice in chunk.choices:
            streamed[choice.index] += choice.delta.content or ""
    assert streamed == texts
    assert [c.message.content for c in chat(client, **{**fields, "seed": 8}).choices] != texts


def test_chat_calls_a_tool_and_uses_its_result(client):
    choice = chat(client, LIGHT, tools=[LIGHT_TOOL]).choices[0]
    assert choice.finish_reason == "tool_calls"
    call = choice.message.tool_calls[0]
    assert call.type == "function" and call.function.name == "set_light"
    assert json.loads(call.function.arguments) == {"room": "kitchen", "on": True}
    turns = LIGHT + [choice.message.model_dump(exclude_none=True),
                     {"role": "tool", "tool_call_id": call.id, "content": '{"ok": true}'}]
    after = chat(client, turns, tools=[LIGHT_TOOL]).choices[0]
    assert after.finish_reason == "stop" and after.message.content
    assert after.message.tool_calls is None


def test_chat_streams_a_tool_call(client):
    name, arguments, finish, ids = "", "", None, set()
    for chunk in chat(client, LIGHT, tools=[LIGHT_TOOL], stream=True):
        finish = chunk.choices[0].finish_reason or finish
        for call in chunk.choices[0].delta.tool_calls or []:
            assert call.index == 0
            ids |= {call.id} - {None}
            name += call.function.name or ""
            arguments += call.function.arguments or ""
    assert (name, finish, len(ids)) == ("set_light", "tool_calls", 1)
    assert json.loads(arguments) == {"room": "kitchen", "on": True}


def test_chat_tool_choice_none(client):
    choice = chat(client, LIGHT, tools=[LIGHT_TOOL], tool_choice="none").choices[0]
    assert choice.message.tool_calls is None and choice.finish_reason != "tool_calls"


def test_chat_in_company_answers_as_alone(client, server):
    questions = [f"What is {10 + i} + {7 * i}?" for i in range(8)]
    alone = [chat(client, [{"role": "user", "content": q}]).choices[0].message.content
             for q in questions]

    async def ask(session, question):
        text = ""
        stream = await session.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": question}], temperature=0,
            max_tokens=64, stream=True)
        async for chunk in stream:
            text += chunk.choices[0].delta.content or ""
        return text

    async def crowd():
        async with openai.AsyncOpenAI(base_url=server.url + "/v1", api_key=KEY,
                                      max_retries=0) as session:
            return await asyncio.gather(*(ask(session, question) for question in questions))

    assert asyncio.run(crowd()) == alone


# Completions.

def test_completion_streams_what_it_answers_at_once(client):
    reply = complete(client)
    assert reply.object == "text_completion" and reply.choices[0].text
    assert reply.usage.completion_tokens <= 12
    chunks = list(complete(client, stream=True, stream_options={"include_usage": True}))
    joined = "".join(choice.text for chunk in chunks for choice in chunk.choices)
    assert joined == reply.choices[0].text
    assert chunks[-1].choices == [] and chunks[-1].usage == reply.usage


def test_completion_of_lists_and_ids(client):
    prompts = [COUNT, COUNT.replace("3", "5")]
    texts = [complete(client, prompt).choices[0].text for prompt in prompts]
    both = complete(client, prompts)
    assert [choice.text for choice in both.choices] == texts
    assert [choice.index for choice in both.choices] == [0, 1]
    assert complete(client, [2, 300, 301]) and complete(client, [[2, 300], [2, 301]])


def test_completion_logprobs_and_echo(client):
    choice = complete(client, "one two three", logprobs=2, echo=True, max_tokens=3).choices[0]
    logprobs = choice.logprobs
    assert choice.text.startswith("one two three")
    assert logprobs.token_logprobs[0] is None and len(logprobs.token_logprobs) > 3
    assert all(value <= 0 for value in logprobs.token_logprobs[1:])
    assert len(logprobs.tokens) == len(logprobs.text_offset) == len(logprobs.top_logprobs)
    assert logprobs.text_offset == sorted(logprobs.text_offset)


def test_completion_stops_and_choices(client):
    whole = complete(client).choices[0].text
    stop = whole[len(whole) // 2:][:2]
    assert complete(client, stop=stop).choices[0].text == whole[:whole.index(stop)]
    fields = {"n": 3, "seed": 5, "temperature": 20, "extra_body": {"top_k": 0}}
    texts = [choice.text for choice in complete(client, **fields).choices]
    assert len(texts) == 3 and len(set(texts)) > 1
    assert [choice.text for choice in complete(client, **fields).choices] == texts


# Errors.

BAD_CHAT_FIELDS = [
    ("temperature", -1), ("top_p", 0), ("n", 0), ("n", 9), ("max_tokens", "many"),
    ("presence_penalty", 2.5), ("logit_bias", {"no": 1}), ("top_logprobs", 21), ("stop", 5),
    ("seed", "x"), ("stream_options", []), ("tools", "none"),
    ("response_format", {"type": "json_object"})]


@pytest.mark.parametrize("field, value", BAD_CHAT_FIELDS)
@pytest.mark.parametrize("stream", [False, True])
def test_a_bad_chat_field_is_named(client, field, value, stream):
    with pytest.raises(openai.BadRequestError) as caught:
        chat(client, stream=stream, extra_body={field: value})
    assert caught.value.status_code == 400 and caught.value.param == field
    assert caught.value.type == "invalid_request_error" and field in caught.value.message


@pytest.mark.parametrize("field, value", [("temperature", 1e9), ("logprobs", 21), ("best_of", 3)])
def test_a_bad_completion_field_is_named(client, field, value):
    with pytest.raises(openai.BadRequestError) as caught:
        complete(client, extra_body={field: value})
    assert caught.value.param == field


def test_a_bad_message_is_named(client):
    with pytest.raises(openai.BadRequestError) as caught:
        chat(client, [{"role": "user", "content": "a"}, {"role": "king", "content": "b"}])
    assert caught.value.param == "messages[1].role"


def test_a_prompt_beyond_the_context(client):
    with pytest.raises(openai.BadRequestError) as caught:
        complete(client, [5] * 40000)
    assert caught.value.code == "context_length_exceeded" and "32768" in caught.value.message


def test_unknown_model_and_route(client):
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="other", messages=SUM)
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other")
    with pytest.raises(openai.NotFoundError):
        client.embeddings.create(model=MODEL, input="a", encoding_format="float")


def test_wrong_and_missing_key(client, server):
    with pytest.raises(openai.AuthenticationError) as caught:
        chat(client.with_options(api_key="other"))
    assert caught.value.status_code == 401 and caught.value.type == "authentication_error"
    with pytest.raises(openai.AuthenticationError):
        client.models.with_raw_response.list(extra_headers={"Authorization": openai.omit})
