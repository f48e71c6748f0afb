"""Tests a chat template in a limited process, since it is an untrusted program that may never end.

The template is rendered in a separate process with limits: `SECONDS` of processor time, `WALL_SECONDS` of time and `MEMORY_BYTES` of
memory. It gets short messages, with and without a system message. transformers' sandbox prevents access to files and Python; this check
limits time and memory. Messages that a template refuses (such as a system message) are ignored. A template that only fails on other kinds
of messages passes.
"""

import functools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from etude.errors import UserError

SECONDS = 2
WALL_SECONDS = 30
MEMORY_BYTES = 1_000_000_000
MAX_CHARACTERS = 1_000_000
"""Maximum output for a short message; a page of the template's own instructions is far less."""

_TRIAL = """
import json, sys
try:
    import resource
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
except (ImportError, ValueError):
    pass  # the clock is left
sys.path += PLACES
import jinja2, jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

class Generation(jinja2.ext.Extension):
    tags = {"generation"}
    def parse(self, parser):
        next(parser.stream)
        return parser.parse_statements(["name:endgeneration"], drop_needle=True)

def fail(message):
    raise jinja2.TemplateError(message)

known = {"raise_exception": fail, "strftime_now": lambda form: form}
env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, "jinja2.ext.loopcontrols"])
env.filters["tojson"] = lambda value, **_: json.dumps(value)
env.globals.update(known)
template, special = json.load(sys.stdin)
user, system = {"role": "user", "content": "What is 2 + 2?"}, {"role": "system", "content": "Be brief."}
most = 0
try:
    made = env.from_string(template)
except MemoryError:
    raise
except Exception:
    sys.exit(0)
for messages in ([user], [system, user], [user, {"role": "assistant", "content": "4"}, user]):
    try:
        most = max(most, len(made.render(messages=messages, add_generation_prompt=True, tools=None, documents=None, **special)))
    except MemoryError:
        raise
    except Exception:
        pass
print(most)
"""


def check_chat_template(name: str, tokenizer: Any) -> None:
    """Raise UserError if a tokenizer's chat template takes too much time or memory, or writes too much."""
    templates = tokenizer.chat_template or {}
    for template in templates.values() if isinstance(templates, dict) else [templates]:
        problem = _problem(str(template), json.dumps({key: str(value) for key, value in tokenizer.special_tokens_map.items()}))
        if problem:
            raise UserError(f"model {name!r}: its chat template {problem}: correct the template, or remove it")


@functools.cache
def _problem(template: str, special: str) -> str | None:
    """Render a template, once, and describe the problem; None if there is none."""
    import jinja2
    import markupsafe

    places = sorted({str(Path(module.__file__ or "").parents[1]) for module in (jinja2, markupsafe)})
    code = f"SECONDS, MEMORY, PLACES = {SECONDS}, {MEMORY_BYTES}, {places!r}\n{_TRIAL}"
    asked = json.dumps([template, json.loads(special)])
    try:
        done = subprocess.run([sys.executable, "-I", "-c", code], input=asked, capture_output=True, text=True, timeout=WALL_SECONDS)
    except subprocess.TimeoutExpired:
        return f"does not end within {WALL_SECONDS} s"
    if "MemoryError" in done.stderr:
        return f"needs more than {MEMORY_BYTES / 1e9:g} GB of memory for a short question"
    if done.returncode < 0:
        return f"does not end within {SECONDS} s of the processor"
    written = int(done.stdout or 0) if done.returncode == 0 else 0
    return f"writes {written:,} characters for a short question, the most is {MAX_CHARACTERS:,}" if written > MAX_CHARACTERS else None
