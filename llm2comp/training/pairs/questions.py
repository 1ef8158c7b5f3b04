"""Questions made from statements that answer them, by rules on words alone.

Each rule asks for one part of the statement (a date, a place, an agent, a number, a reason, the subject) and leaves it
out. Without a rule that is sure of the verb there is no question: a wrong question costs more than a missing one.
"""

import random
import re
from dataclasses import dataclass

from llm2comp.training.pairs.sentences import english

__all__ = ["ask"]

_AUXILIARIES = frozenset(
    ["is", "are", "was", "were", "has", "had", "have", "can", "could", "will", "would", "may", "must"]
)
_NO_SUBJECT = re.compile(
    r"(?i)(?:in|on|at|by|for|from|to|with|after|before|since|during|when|while|if|although|though|because|as|despite|there|this|these|that|those"
    r"|and|but|or|also|however|other|another|both|here|then|thus|who|which|what|such|not|it|they|we|you|one|some|many|most|several|all)"
)
_NOT_BEFORE_VERB = re.compile(
    r"(?i)(?:an?|the|of|and|or|to|in|on|at|by|for|with|from|its|his|her|their|our|not|more|most|very|\w+ly)"
)
_INSIDE_SUBJECT = frozenset(["that", "who", "which", "whose", "where", "when", "if", "to"])
_MONTH = r"(?:January|February|March|April|May|June|July|August|September|October|November|December)"
_YEAR = rf"in (?:early |late |mid-)?(?:the )?(?:{_MONTH}|spring|summer|autumn|winter)?(?: of)? ?\d{{4}}s?"
_DAY = rf"on (?:\d{{1,2}} {_MONTH}|{_MONTH} \d{{1,2}})(?:,? \d{{4}})?"
_LEADING_TIME = re.compile(rf"(?:{_YEAR}|{_DAY}), ", re.IGNORECASE)
_TIME = re.compile(rf",? \b(?:{_YEAR}|{_DAY})\b(?! and\b)", re.IGNORECASE)
_PLACE = re.compile(r" (?:in|at|near) ((?:the )?(?:[A-Z][\w'’-]+)(?:,? (?:of |the )?[A-Z][\w'’-]+)*)")
_AGENT = re.compile(r" by ((?:(?:the|a|an|his|her) )?[A-Z][^,;]*|the [a-z][^,;]*)$")
_REASON = re.compile(r",? (?:because|due to|owing to|in order to|so that) .*$")
_NUMBER = r"(?:\d[\d,.]*|two|three|four|five|six|seven|eight|nine|ten|twelve|hundreds of)(?: million| billion)?"
_COUNT = re.compile(
    rf" (?:about |around |approximately |over |nearly |more than |some )?{_NUMBER} "
    r"((?!(?:is|was|has|this|as|its|his) )(?:(?!was |is |and )[a-z-]+ )?"
    r"(?:[a-z]{3,}(?<!thi)s|people|men|women|children))\b"
)
_PREPOSITION = re.compile(r" (?:in|for|with|from|to|at|on|against|during|into|as) ")
_CLAUSE_END = re.compile(
    r"[;:]| [–—-] |, (?:(?:to|in|of|for|from|by|on|at) which|which|who|whose|whom|where|when|although|though|while"
    r"|whereas|but|and|with|including|as|so|making|becoming|until|after|before|because)\b"
)


@dataclass(frozen=True, slots=True)
class _Clause:
    subject: str
    verb: str
    rest: str
    leading_time: str

    @property
    def auxiliary(self) -> str:
        return self.verb if self.verb in _AUXILIARIES else "did"

    @property
    def main_verb(self) -> str:
        """Verb after the subject of a question: empty if the statement's verb is an auxiliary, else its base form."""
        return "" if self.verb in _AUXILIARIES else _base(self.verb)


def ask(sentence: str, topic: str, rng: random.Random) -> str | None:
    """A question that the sentence answers, or None if no rule fits.

    Args:
        sentence: A statement.
        topic: Topic of the sentence's article; replaces a pronoun at the beginning.
        rng: Source of randomness; one of the rules that fit is selected.
    """
    clause = _parse(sentence, topic)
    if clause is None:
        return None
    candidates = [(weight, text) for weight, text in _candidates(clause) if 4 <= len(text.split()) <= 24]
    if not candidates:
        return None
    question = rng.choices([text for _, text in candidates], [weight for weight, _ in candidates])[0]
    question = re.sub(r"\s+([,.])", r"\1", " ".join(question.split()))
    question = re.sub(r"(?:[ ,.]+(?:and|or|the|an?)|[ ,.]+)+$", "", question)
    return question[0].upper() + question[1:] + "?"


def _parse(sentence: str, topic: str) -> _Clause | None:
    text = re.sub(r"\s*[(\[][^()\[\]]*[)\]]", "", sentence).rstrip('.!?"” ')
    time = _LEADING_TIME.match(text)
    if time:
        text = text[time.end() :]
    text = _replace_pronoun(text, topic)
    words = _CLAUSE_END.split(text, maxsplit=1)[0].rstrip(",").split()
    position = _verb_position(words)
    if position is None:
        return None
    subject = " ".join(words[:position])
    if subject.split()[0].lower() in english().stop_words and not subject.startswith(topic):
        subject = subject[0].lower() + subject[1:]
    return _Clause(subject, words[position], " ".join(words[position + 1 :]), time[0].rstrip(", ") if time else "")


def _replace_pronoun(text: str, topic: str) -> str:
    first, _, rest = text.partition(" ")
    if first.lower() in ("he", "she", "it"):
        return f"{topic} {rest}"
    if first.lower() in ("his", "her", "its"):
        return f"{topic}'s {rest}"
    return text


def _verb_position(words: list[str]) -> int | None:
    """Index of the first finite verb if the words before it can be its subject, else None."""
    if len(words) < 4 or _NO_SUBJECT.fullmatch(words[0].strip("\",'")) or words[0].endswith("ing"):
        return None
    for position, word in enumerate(words[1:9], start=1):
        if words[position - 1].endswith(",") or word in _INSIDE_SUBJECT:
            return None
        if (
            word in _AUXILIARIES
            or word in english().past_to_base
            or (word.islower() and re.fullmatch(r"[a-z]{2,}ed", word))
        ):
            sure = not _NOT_BEFORE_VERB.fullmatch(words[position - 1]) and len(words) - position > 2
            return position if sure else None
    return None


def _base(verb: str) -> str:
    known = english().past_to_base.get(verb)
    if known:
        return known
    stem = verb[:-2]
    if stem.endswith("i"):
        return stem[:-1] + "y"
    if len(stem) > 3 and stem[-1] == stem[-2] and stem[-1] not in "lsz":
        return stem[:-1]
    if re.search(
        r"(?:[csvuz]|[^aeiou]g|dg|at|ir|ur|[^aeiou]l|[iu]n|[^e]id|ud|ot|it|[iau]s|ak|ib)$", stem
    ) and not re.search(r"(?:ss|ain|oin|isit|imit|mit|edit|it)$", stem):
        return stem + "e"
    return stem


def _candidates(clause: _Clause) -> list[tuple[float, str]]:
    """Pairs (weight, question); the weights favour what users ask most, facts about a named thing."""
    subject, rest = clause.subject, f" {clause.rest}"
    lead = f"{clause.auxiliary} {subject} {clause.main_verb}"
    questions: list[tuple[float, str]] = []
    if clause.leading_time:
        questions.append((3, f"when {lead}{rest}"))
    for word, pattern, weight in (("when", _TIME, 3), ("where", _PLACE, 2), ("why", _REASON, 4)):
        match = pattern.search(rest)
        if match:
            left = rest[: match.start()] + (rest[match.end() :] if word != "why" else "")
            questions.append((weight, f"{word} {lead}{left}"))
    agent = _AGENT.search(rest)
    if agent and clause.verb in ("is", "are", "was", "were"):
        questions.append((3, f"{'who' if re.match(r'[A-Z]', agent[1]) else 'what'} {lead}{rest[: agent.start()]} by"))
    count = _COUNT.search(rest)
    if count:
        questions.append((4, f"how many {count[1]} {lead}{rest[: count.start()]}{rest[count.end() :]}"))
    questions += _whole_part_questions(clause, rest, lead)
    return questions


def _whole_part_questions(clause: _Clause, rest: str, lead: str) -> list[tuple[float, str]]:
    questions: list[tuple[float, str]] = []
    names = re.findall(r"\b[A-Z]\w+|\d{3,}", rest)
    if len(rest.split()) >= 5:
        asking = (
            "who" if _looks_like_person(clause.subject) else "which" if clause.subject.startswith("the ") else "what"
        )
        if asking == "which":
            asking = f"which {clause.subject.split()[-1]}"
        questions.append((1.5 if names else 0.5, f"{asking} {clause.verb}{rest}"))
    if clause.verb not in _AUXILIARIES:
        match = _PREPOSITION.search(rest)
        if match and match.start() > 3 and not rest.startswith((" place", " part")):
            questions.append((2, f"what {lead}{rest[match.start() :]}"))
    elif len(rest.split()) >= 4:
        questions.append((0.7, f"{lead}{rest}"))
    return questions


def _looks_like_person(subject: str) -> bool:
    words = subject.split()
    return 2 <= len(words) <= 4 and all(word[:1].isupper() for word in words) and words[0] != "The"
