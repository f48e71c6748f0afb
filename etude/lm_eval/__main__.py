"""`python -m etude.lm_eval`: lm-evaluation-harness's command with etude's models; without --model or --config, with --model etude."""

import sys

from etude.console.terminal import visible
from etude.errors import UserError

_CHOOSES = ("--model", "-M", "--config", "-C")


def main(arguments: list[str] | None = None) -> int:
    """Run the harness's command and return the exit status: 0, or 2 for wrong input."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        from lm_eval.__main__ import cli_evaluate

        import etude.lm_eval.adapter  # noqa: F401  # which registers the model
    except ModuleNotFoundError as error:
        print(f"etude: lm_eval needs the package {error.name}: pip install 'etude[eval]'", file=sys.stderr)
        return 2
    sys.argv = ["python -m etude.lm_eval", *_with_model(given)]
    try:
        cli_evaluate()
    except UserError as error:
        print(f"etude: {visible(str(error))}", file=sys.stderr)
        return 2
    return 0


def _with_model(given: list[str]) -> list[str]:
    """Return the arguments with --model etude, unless they name a model or are those of another command of the harness."""
    words = given[1:] if given[:1] == ["run"] else given
    if not words or not words[0].startswith("-") or words[0] in ("-h", "--help"):
        return given
    if any(word.partition("=")[0] in _CHOOSES for word in words):
        return given
    return ["run", "--model", "etude", *words]


if __name__ == "__main__":
    sys.exit(main())
