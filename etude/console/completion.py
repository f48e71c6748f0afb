"""Scripts that complete the commands, settings and recipes of `etude` in a shell.

eval "$(etude completion bash)"        in ~/.bashrc; for zsh the same in ~/.zshrc
etude completion fish > ~/.config/fish/completions/etude.fish
"""

from collections.abc import Mapping, Sequence

SHELLS = ("bash", "zsh", "fish")


def completion(shell: str, commands: Mapping[str, tuple[Sequence[str], Sequence[str]]]) -> str:
    """Return the script of a shell; `commands` have their first words, such as recipes, and their options."""
    return _fish(commands) if shell == "fish" else _bash(commands, is_zsh=shell == "zsh")


def _bash(commands: Mapping[str, tuple[Sequence[str], Sequence[str]]], *, is_zsh: bool) -> str:
    cases = "\n".join(
        f"    {name}) first='{' '.join(first)}'; options='{' '.join(options)}' ;;" for name, (first, options) in commands.items()
    )
    head = "autoload -U +X bashcompinit && bashcompinit\n" if is_zsh else ""
    return f"""{head}_etude() {{
  local word="${{COMP_WORDS[COMP_CWORD]}}" first="" options=""
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W "{" ".join(commands)} --help --version" -- "$word")); return
  fi
  case "${{COMP_WORDS[1]}}" in
{cases}
  esac
  case "$word" in
    -*) COMPREPLY=($(compgen -W "$options --help" -- "$word")) ;;
    *) [ "$COMP_CWORD" -eq 2 ] && COMPREPLY=($(compgen -W "$first" -- "$word")) ;;
  esac
  [ "${{#COMPREPLY[@]}}" -gt 0 ] || COMPREPLY=($(compgen -f -- "$word"))
}}
complete -F _etude etude
"""


def _fish(commands: Mapping[str, tuple[Sequence[str], Sequence[str]]]) -> str:
    lines = [f"complete -c etude -f -n __fish_use_subcommand -a '{' '.join(commands)}'"]
    for name, (first, options) in commands.items():
        where = f"complete -c etude -n '__fish_seen_subcommand_from {name}'"
        lines += [f"{where} -a '{' '.join(first)}'"] if first else []
        lines += [f"{where} -l {option.removeprefix('--')}" for option in options]
    return "\n".join(lines) + "\n"
