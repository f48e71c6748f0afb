"""The files of a practice of one's own: a commented recipe, tasks and a verifier to change. `etude init FOLDER` writes them."""

import json
from pathlib import Path

from etude.errors import UserError

RECIPE = """\
# A practice of your own. Run it in this folder:  etude practice recipe.yaml
command: practice
model: smollm2-135m           # or a folder, a .gguf file, a hub id
tasks:
  path: [tasks.jsonl]         # one {"question": ..., "answer": ...} a line; other columns reach the verifier as task.metadata
  verifier: verifier.py:score # your reward: (text, task) -> any number; `etude practice --help tasks` lists those that ship
evaluation:
  path: [evaluation.jsonl]    # tasks that training never sees
steps: 30                     # each samples attempts, scores them and updates the model
rollout:
  tasks_per_step: 16
  num_samples: 8              # attempts at each task, which are compared
  max_new_tokens: 48
  sampling: {temperature: 0.8}
learn:
  advantage: grpo             # etude practice --help learn
  minibatches_per_epoch: 2
  optimizer: {learning_rate: 5.0e-5, warmup_steps: 3}
# callbacks:                  # optional features: etude practice --help callbacks
#   kl_penalty: {kl_coef: 0.05}
#   interpolation: {factor: 1, max_kl: 0.025}   # keeps what the model knew: docs/instructions.md
"""

VERIFIER = '''\
"""The reward: how good is an answer? It runs in a process of its own, with a time limit and without network."""


def score(text, task):
    """Return 1 for an answer of one sentence that has the word, less for a longer one; any number is a reward."""
    has_word = task.metadata["word"] in text.lower()
    sentences = max(1, text.count(".") + text.count("!") + text.count("?"))
    return float(has_word) / sentences


score.right_at = 1.0  # the score from which an answer counts as right
'''

SUBJECTS = (
    *("a river", "an old bridge", "the moon", "a baker", "winter", "a train station", "the sea", "a garden", "a clock", "the wind"),
    *("a market", "a lighthouse", "bread", "a library", "rain", "a mountain", "a school", "a violin", "the desert", "a ship"),
)
WORDS = ("light", "stone", "bird", "blue", "song", "road", "silver", "morning")
HELD_OUT = 32
"""Tasks of the evaluation."""


def write_practice(folder: Path) -> list[Path]:
    """Write a recipe, a verifier and tasks, and return the files. Raises UserError if the folder holds one of them."""
    tasks = [
        {"question": f'Write one sentence about {subject} with the word "{word}".', "word": word} for subject in SUBJECTS for word in WORDS
    ]
    held_out = [task for place, task in enumerate(tasks) if place % (len(tasks) // HELD_OUT) == 0]
    files = {
        "recipe.yaml": RECIPE,
        "verifier.py": VERIFIER,
        "tasks.jsonl": _lines([task for task in tasks if task not in held_out]),
        "evaluation.jsonl": _lines(held_out),
    }
    if there := [name for name in files if (folder / name).exists()]:
        raise UserError(f"init: {folder / there[0]} exists already and is never overwritten: name another folder")
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf8")
    return [folder / name for name in files]


def _lines(rows: list[dict[str, str]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)
