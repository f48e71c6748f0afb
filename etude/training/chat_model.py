"""Connect to a chat model: a server, or a model that is loaded locally."""

from collections.abc import Mapping, Sequence

from etude.device.machine import Device, Machine, max_prompt_tokens
from etude.engine.build import engine_at
from etude.engine.sampling import Sampling
from etude.errors import UserError
from etude.llm_client.endpoint import Endpoint
from etude.llm_client.model import Ask, ChatModel, Messages, Reply
from etude.models.load import load_model
from etude.randomness import seed_for
from etude.rollouts.prompts import render_prompt, without_control
from etude.tasks.task import Task


def open_chat_model(how: ChatModel, place: Device, machine: Machine, example: Messages, seed: int = 0) -> Ask:
    """Open the chat model that `how` names; `example` has the roles that all messages have. Raises UserError if it is unavailable."""
    if how.url is None:
        return local_chat_model(how, place, machine, example, seed)
    endpoint = Endpoint(how)
    endpoint.check()
    return endpoint.ask


def check_chat_model(how: ChatModel, place: Device, machine: Machine, example: Messages) -> None:
    """Raise UserError if the chat model is unavailable; a local model is loaded for the check and released."""
    open_chat_model(how, place, machine, example)


def local_chat_model(how: ChatModel, place: Device, machine: Machine, example: Messages, seed: int = 0) -> Ask:
    """Load a local chat model; its replies depend only on `seed` and the conversation."""
    assert how.model is not None
    try:
        model, tokenizer = load_model(how.model, device=place.device)
        engine, room = engine_at(place, model, tokenizer, machine), max_prompt_tokens(model, how.max_new_tokens)
        render_prompt(tokenizer, Task(tuple(example)))  # raises if its chat template refuses the roles
    except UserError as error:
        raise UserError(f"{how.section}.model {how.model}: {error}") from error

    def as_data(message: Mapping[str, str]) -> Mapping[str, str]:
        return {**message, "content": without_control(tokenizer, message["content"])}

    def ask(conversations: Sequence[Messages]) -> list[Reply]:
        prompts = [render_prompt(tokenizer, Task(tuple(map(as_data, messages)))) for messages in conversations]
        fitting = [prompt for prompt in prompts if len(prompt) <= room]
        keys = [[seed_for(seed, how.section, str(prompt))] for prompt in fitting]
        sampling = Sampling(temperature=how.temperature)
        found = iter(engine.generate(fitting, max_new_tokens=how.max_new_tokens, sampling=sampling, keys=keys) if fitting else [])

        def reply_to(prompt: Sequence[int]) -> Reply:
            if len(prompt) > room:
                return Reply(None, f"the {how.section} has room for a question of {room} tokens, this one has {len(prompt)}")
            (completion,) = next(found)
            return Reply(completion.text, is_cut_off=completion.finish == "length")

        return [reply_to(prompt) for prompt in prompts]

    return ask
