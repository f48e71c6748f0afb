"""Tell whether the working tree is what a commit says: a cell that is kept in the repository names a commit that can compute it again.

Only sources count. What a study writes itself, cells, runs, results, figures and tables on pages, changes no other cell.
"""

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]
_SOURCES = ("etude", "experiments", "studies", "bench", "pyproject.toml", "constraints.txt")
_WRITTEN = ("studies/*/**", "bench/results/**", "**/*.md")
_DIRTY = "-dirty"


def changed_sources(root: Path = ROOT) -> list[str]:
    """Return the sources that differ from the last commit, new ones among them; none where there is no git or no repository."""
    sources = [name for name in _SOURCES if (root / name).exists()]
    without = [f":(exclude,glob){pattern}" for pattern in _WRITTEN]
    command = ["git", "status", "--porcelain", "--no-renames", "--untracked-files=all", "--", *sources, *without]
    try:
        found = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return []
    return [line[3:] for line in found.splitlines()]


def refuse_changed(cell: str, out: Path, root: Path = ROOT) -> None:
    """Raise SystemExit where `cell` would be kept in the repository and sources differ from the last commit."""
    is_kept = root.resolve() in (out.resolve(), *out.resolve().parents)
    if is_kept and (changed := changed_sources(root)):
        more = f" (and {len(changed) - 1} more)" if changed[1:] else ""
        raise SystemExit(
            f"{cell} would name a commit that it was not computed by, since {changed[0]}{more} differs from it: "
            "commit first, or keep what is tried elsewhere by --out DIR"
        )


def is_dirty(commit: str | None) -> bool:
    """Return whether a cell names a tree that differed from its commit."""
    return (commit or "").endswith(_DIRTY)


def commit_of(named: str | None, root: Path = ROOT) -> str | None:
    """Return the commit that a cell names. A tree of which only what studies write has changed since its commit counts as unchanged."""
    if named is None or not is_dirty(named) or changed_sources(root):
        return named
    return named.removesuffix(_DIRTY) if named.removesuffix(_DIRTY) == _head(root) else named


def _head(root: Path) -> str | None:
    try:
        found = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.strip()
