"""The rules of IFEval under their public names: rows with `prompt`, `instruction_id_list` and `kwargs` are tasks.

The 25 kinds of Zhou et al. 2023 (arXiv 2311.07911, table 1), with the counting of the authors' checker (google-research,
instruction_following_eval): words are runs of letters, digits and underscores, paragraphs are separated by `***` (or by an empty line where
a first word is asked for). Departures: sentences are counted by `etude.tasks.instructions.text.num_sentences` instead of nltk's punkt. The
language of an answer is detected by langdetect, as there: without that package its kind is refused, and the two kinds of English in one
case check the case only.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from etude.errors import UserError, unknown
from etude.tasks.instructions.text import num_sentences as count_sentences

_WORD = re.compile(r"\w+")
_HIGHLIGHT = re.compile(r"\*\*[^\n*]+\*\*|\*[^\n*]+\*")
_BULLET = re.compile(r"^\s*(?:\*[^*].*|-.*)$", re.MULTILINE)
_CONSTRAINED = ("My answer is yes.", "My answer is no.", "My answer is maybe.")


def compare(number: int, relation: str, limit: int) -> bool:
    """Compare by a relation of IFEval. Raises UserError for an unknown one.

    >>> compare(3, "at least", 3), compare(3, "less than", 3)
    (True, False)
    """
    if relation not in ("at least", "less than"):
        raise unknown("relation", relation, ("at least", "less than"))
    return number >= limit if relation == "at least" else number < limit


def _existence(text: str, keywords: Sequence[str]) -> bool:
    return all(re.search(re.escape(keyword), text, re.IGNORECASE) for keyword in keywords)


def _frequency(text: str, keyword: str, frequency: int, relation: str) -> bool:
    return compare(len(re.findall(re.escape(keyword), text, re.IGNORECASE)), relation, frequency)


def _forbidden(text: str, forbidden_words: Sequence[str]) -> bool:
    return not any(re.search(rf"\b{re.escape(word)}\b", text, re.IGNORECASE) for word in forbidden_words)


def _letter_frequency(text: str, letter: str, let_frequency: int, let_relation: str) -> bool:
    return compare(text.lower().count(letter.lower()), let_relation, let_frequency)


def _language(text: str, language: str) -> bool:
    langdetect = _langdetect()
    langdetect.DetectorFactory.seed = 0  # the library samples
    try:
        return bool(langdetect.detect(text) == language)
    except langdetect.LangDetectException:  # no letters: the authors' checker says followed
        return True


def _langdetect() -> Any:
    try:
        import langdetect
    except ImportError:
        raise UserError("the rule language:response_language needs the package langdetect: pip install 'etude[ifeval]'") from None
    return langdetect


def _sentences(text: str, num_sentences: int, relation: str) -> bool:
    return compare(count_sentences(text), relation, num_sentences)


def _paragraphs(text: str, num_paragraphs: int) -> bool:
    parts = re.split(r"\s?\*\*\*\s?", text)
    return all(part.strip() for part in parts[1:-1]) and sum(bool(part.strip()) for part in parts) == num_paragraphs


def _words(text: str, num_words: int, relation: str) -> bool:
    return compare(len(_WORD.findall(text)), relation, num_words)


def _first_word_of_paragraph(text: str, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    parts = [part.strip() for part in text.split("\n\n") if part.strip()]
    if len(parts) != num_paragraphs or nth_paragraph > len(parts):
        return False
    word = parts[nth_paragraph - 1].split()[0].lstrip("'\"")
    return re.split(r"[.,?!'\"]", word)[0].lower() == first_word.lower()


def _placeholders(text: str, num_placeholders: int) -> bool:
    return len(re.findall(r"\[.*?\]", text)) >= num_placeholders


def _postscript(text: str, postscript_marker: str) -> bool:
    spaced = r"\s?".join(re.escape(letter) for letter in postscript_marker.lower() if not letter.isspace())
    return re.search(spaced, text.lower()) is not None


def _bullets(text: str, num_bullets: int) -> bool:
    return len(_BULLET.findall(text)) == num_bullets


def _constrained(text: str) -> bool:
    return any(option in text for option in _CONSTRAINED)


def _highlights(text: str, num_highlights: int) -> bool:
    return sum(bool(found.strip("*").strip()) for found in _HIGHLIGHT.findall(text)) >= num_highlights


def _sections(text: str, section_spliter: str, num_sections: int) -> bool:
    return len(re.split(rf"\s?{re.escape(section_spliter)}\s?\d+\s?", text)) - 1 >= num_sections


def _json(text: str) -> bool:
    text = text.strip()
    for opening in ("```json", "```Json", "```JSON", "```"):
        text = text.removeprefix(opening)
    try:
        json.loads(text.removesuffix("```").strip())
    except (ValueError, RecursionError):
        return False
    return True


def _title(text: str) -> bool:
    return any(found.strip("<>").strip() for found in re.findall(r"<<[^\n]+>>", text))


def _two_responses(text: str) -> bool:
    parts = text.split("******")
    said = [part.strip() for part in parts if part.strip()]
    return all(part.strip() for part in parts[1:-1]) and len(said) == 2 and said[0] != said[1]


def _repeats_prompt(text: str, prompt_to_repeat: str) -> bool:
    return text.strip().lower().startswith(prompt_to_repeat.strip().lower())


def _ends_with(text: str, end_phrase: str) -> bool:
    return text.strip().strip('"').lower().endswith(end_phrase.strip().lower())


def _capital_words(text: str, capital_frequency: int, capital_relation: str) -> bool:
    return compare(sum(word.isupper() for word in _WORD.findall(text)), capital_relation, capital_frequency)


def _quoted(text: str) -> bool:
    text = text.strip()
    return len(text) > 1 and text[0] == text[-1] == '"'


IFEVAL: dict[str, Callable[..., bool]] = {
    "keywords:existence": _existence,
    "keywords:frequency": _frequency,
    "keywords:forbidden_words": _forbidden,
    "keywords:letter_frequency": _letter_frequency,
    "language:response_language": _language,
    "length_constraints:number_sentences": _sentences,
    "length_constraints:number_paragraphs": _paragraphs,
    "length_constraints:number_words": _words,
    "length_constraints:nth_paragraph_first_word": _first_word_of_paragraph,
    "detectable_content:number_placeholders": _placeholders,
    "detectable_content:postscript": _postscript,
    "detectable_format:number_bullet_lists": _bullets,
    "detectable_format:constrained_response": _constrained,
    "detectable_format:number_highlighted_sections": _highlights,
    "detectable_format:multiple_sections": _sections,
    "detectable_format:json_format": _json,
    "detectable_format:title": _title,
    "combination:two_responses": _two_responses,
    "combination:repeat_prompt": _repeats_prompt,
    "startend:end_checker": _ends_with,
    "startend:quotation": _quoted,
    "change_case:capital_word_frequency": _capital_words,
    "change_case:english_capital": lambda text: text.isupper() and _is_english(text),
    "change_case:english_lowercase": lambda text: text.islower() and _is_english(text),
    "punctuation:no_comma": lambda text: "," not in text,
}
"""Public name → check of (text, **arguments)."""


def ifeval_rules(row: Mapping[str, Any], origin: str) -> list[dict[str, Any]]:
    """Return the rules of a row, as the verifier reads them. Raises UserError for an unknown kind and for arguments that it does not take.

    >>> ifeval_rules({"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{"num_words": None}]}, "file:1")
    [{'kind': 'punctuation:no_comma', 'arguments': {}}]
    """
    kinds, arguments = row["instruction_id_list"], row.get("kwargs") or [{} for _ in row["instruction_id_list"]]
    if not isinstance(kinds, Sequence) or isinstance(kinds, str) or not kinds or len(kinds) != len(arguments):
        raise UserError(f"{origin}: instruction_id_list and kwargs must be lists of the same length, with at least one rule")
    rules = []
    for kind, given in zip(kinds, arguments, strict=True):
        if kind not in IFEVAL:
            raise unknown(f"kind of rule in {origin}", str(kind), IFEVAL)
        rules.append({"kind": kind, "arguments": {name: value for name, value in (given or {}).items() if value is not None}})
        _try(rules[-1], origin)
    return rules


def _try(rule: Mapping[str, Any], origin: str) -> None:
    try:
        IFEVAL[rule["kind"]]("Some text.", **rule["arguments"])
    except (TypeError, AttributeError) as error:
        raise UserError(f"{origin}: kwargs of {rule['kind']} are wrong: {error}") from error


def _is_english(text: str) -> bool:
    """Return whether a text is English, if langdetect is installed; the authors ask for it beside the case of letters."""
    try:
        return _language(text, "en")
    except UserError:
        return True
