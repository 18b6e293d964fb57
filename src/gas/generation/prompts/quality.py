"""The quality gate: which texts may become prompts, and why the others may not.

Covered: what is no text, control and invisible characters, characters that turn the direction of reading, markup and
code, links and addresses, answers of a chat model in place of a prompt, orders to a model, repetition, other languages
than English, lengths. Not covered: sense, taste, and whatever a provider's own moderation looks for.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from gas.errors import Reason
from gas.generation.prompts.terms import LengthBand, band_of

__all__ = ["CODES", "GateCounts", "QualityGate", "check_prompt", "clean_prompt"]

CODES: Final = (
    "empty", "not_text", "too_long", "control_characters", "direction_override", "invisible_characters", "handle",
    "link", "hostile", "markup", "code", "refusal", "repetition", "not_words", "language", "too_short",
)  # fmt: skip
"""Every code of a refusal, in the order in which they are looked for."""

_MAX_BYTES: Final = 64 * 1024
_SPACE: Final = re.compile(r"[ \t\r\n]+")
_DIRECTION: Final = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_LINK: Final = re.compile(
    r"\b(?:[a-z][a-z0-9+.-]{1,15}://|www\.|data:[a-z]+/|javascript:)"
    r"|\b[a-z0-9-]{2,63}\.(?:com|org|net|io|ai|co|edu|gov|info|ru|cn|de|uk|me|tv|app|dev|xyz)\b",
    re.IGNORECASE,
)
_HANDLE: Final = re.compile(r"[\w.+-]{1,64}@[\w-]{1,63}\.\w|(?:^|[\s(,;])[@#][A-Za-z_]\w|\bu/\w{3}|\br/\w{3}")
_MARKUP: Final = re.compile(
    r"</?[a-z!][^<>]{0,200}>|&(?:[a-z]{2,8}|#\d{1,6});|!?\[[^\]\n]{0,200}\]\(|\*\*|__|~~|^\s*#{1,6}\s|^\s*[-*+]\s"
    r"|^\s*\|.*\||\{\{|\}\}|<\|",
    re.IGNORECASE,
)
_CODE: Final = re.compile(
    r"```|`[^`]+`|^\s*[\[{].*[\]}]\s*$|\"\s*:\s*[\"\[{\d]|\b(?:def|function|class|import|return|print|console\.log)\s*[\w.]*\s*\("
    r"|[;{}]\s*[;{}]|=>|\bSELECT\b.{1,80}\bFROM\b|--\w+(?:=|\s\d)|\([^()]{1,80}:\d\.\d+\)|<lora:",
    re.DOTALL,
)
_REFUSAL: Final = re.compile(
    r"\bas an? (?:ai|artificial intelligence|(?:large )?language model|assistant)\b"
    r"|\b(?:i'm|i am) sorry,? (?:but |however )?i (?:can|am|must|do|won)"
    r"|\b(?:i can't|i cannot|i can not|i won't|i will not|(?:i'm|i am) (?:not able|unable) to)"
    r" (?:help|assist|create|generate|fulfil|provide|comply|continue|describe|make|produce|write|do that|engage|see)\b"
    r"|\b(?:i must|i have to) decline\b|^(?:i'm|i am) sorry\b|^i (?:can't|cannot)\.?$"
    r"|\bi apologi[sz]e\b|\bunfortunately,? i\b|\bagainst my (?:guidelines|programming|policy)\b"
    r"|\b(?:sure|certainly|of course|absolutely)[,!.:]? (?:here|i)\b"
    r"|\bhere(?:'| i)s (?:a|an|the|your|one)\b.{0,40}\b(?:prompt|caption|description)\b"
    r"|\b(?:i hope this helps|let me know if|as requested|happy to help)\b|\bcontent policy\b",
    re.IGNORECASE,
)
_HOSTILE: Final = re.compile(
    r"\b(?:ignore|disregard|forget|override|bypass)\b.{0,30}\b(?:previous|prior|above|earlier|all|your|system)\b.{0,30}"
    r"\b(?:instruction|instructions|prompt|prompts|rules|context|safety|filters?)\b"
    r"|\b(?:system|developer) (?:prompt|message)\b|\byou are (?:now )?(?:chatgpt|an? ai|dan|jailbroken)\b|\bjailbreak"
    r"|\b(?:rm -rf|drop table|union select|/etc/passwd|\.\./\.\.|\$\(|cmd\.exe|powershell)"
    r"|\[/?inst\]|\bim_start\b|\bendoftext\b",
    re.IGNORECASE,
)
_RUN: Final = re.compile(r"(.)\1{5,}|([!?.,;:_=~-])\2{3,}")
_WORD: Final = re.compile(r"[^\W\d_]+(?:['-][^\W\d_]+)*")
_LETTER_RUN: Final = re.compile(r"[bcdfghjklmnpqrstvwxz]{6,}|[a-z]{25,}", re.IGNORECASE)
_ENGLISH_WORDS: Final = (
    "a an the of on in at with by to from is are was were be being been it its his her their they he she we you i and "
    "or but as for that this these those while when where who which into onto over under through near behind between "
    "across along beside around above below after before during against toward towards up down out off some one two "
    "three no not only very just still there here has have had will would can what how all each another any my your"
)
_ENGLISH: Final = frozenset(_ENGLISH_WORDS.split())
_FOREIGN: Final = {
    "de": "der die das und ist ein eine einen einem einer mit auf für nicht im am den dem des von zu zum zur ich sie",
    "fr": "le la les des une est et dans pour avec sur qui que du au aux ce cette il elle sont pas en à où",
    "es": "el la los las una y es en con por para que del al se su como está lo un más sobre",
    "it": "il lo gli una e è di che con per del della nel nella sono non sul sulla alla dei delle",
    "pt": "o os as uma e é em com por para que do da dos das no na não ao um sobre",
    "nl": "de het een en van is op met voor niet aan dat die zijn naar bij uit door",
    "pl": "i w na z do się nie jest to że od przez dla",
    "tr": "bir ve bu ile için de da olan çok gibi",
}
_FOREIGN_WORDS: Final = {code: frozenset(words.split()) for code, words in _FOREIGN.items()}


@dataclass(frozen=True, slots=True)
class QualityGate:
    """What a prompt has to be like.

    Attributes:
        min_words: Fewest words.
        max_characters: Most characters after :func:`clean_prompt`.
        min_english: Least share of the letters that are of the Latin script, in [0, 1].
    """

    min_words: int = 3
    max_characters: int = 1000
    min_english: float = 0.9

    def check(self, text: str) -> Reason | None:
        """Why a text can't be a prompt; None when it can.

        Args:
            text: Anything; untrusted. Only its first 64 KiB are ever looked at.

        Returns:
            The first finding in the order of :data:`CODES`.
        """
        code = _form(text, self.max_characters) or _content(clean_prompt(text), self)
        return Reason(code, _SENTENCES[code]) if code else None


@dataclass(slots=True)
class GateCounts:
    """How many texts came through the gate, and what stopped the others.

    Attributes:
        taken: Texts that passed.
        refused: Number of refusals by code; besides those of :data:`CODES` whatever a bank adds (``duplicate``,
            ``near_repeat``).
    """

    taken: int = 0
    refused: Counter[str] = field(default_factory=Counter)

    @property
    def seen(self) -> int:
        """All texts."""
        return self.taken + self.refused.total()

    def filter(self, texts: Iterable[str], gate: QualityGate) -> Iterable[str]:
        """The texts that pass, cleaned, in their order, one at a time; the others are counted."""
        for text in texts:
            reason = gate.check(text)
            if reason is None:
                self.taken += 1
                yield clean_prompt(text)
            else:
                self.refused[reason.code] += 1

    def as_dict(self) -> dict[str, object]:
        """JSON form."""
        return {"seen": self.seen, "taken": self.taken, "refused": dict(sorted(self.refused.items()))}


def check_prompt(text: str) -> Reason | None:
    """:meth:`QualityGate.check` of the gate in force where nothing else is said."""
    return QualityGate().check(text)


def clean_prompt(text: str) -> str:
    """A text in its normal form: composed characters (NFC), single spaces, nothing around it."""
    return _SPACE.sub(" ", unicodedata.normalize("NFC", text[:_MAX_BYTES])).strip()


_SENTENCES: Final = {
    "empty": "There is no text.",
    "not_text": "It holds bytes that are no text.",
    "too_long": "It is longer than a prompt may be.",
    "control_characters": "It holds control characters.",
    "direction_override": "It holds characters that turn the direction of reading.",
    "invisible_characters": "It holds characters that nobody sees.",
    "link": "It holds an address of the web.",
    "handle": "It holds an e-mail address, a hash tag or somebody's handle.",
    "markup": "It holds markup.",
    "code": "It holds code, JSON or options of a tool.",
    "refusal": "It is the answer of a chat model, not a prompt.",
    "hostile": "It gives orders to a model or a machine instead of describing a medium.",
    "repetition": "It repeats itself.",
    "not_words": "It has hardly any words.",
    "language": "It is not English.",
    "too_short": "It is too short to describe anything.",
}


def _form(text: str, most: int) -> str | None:
    """What is wrong with the characters."""
    if not text.strip():
        return "empty"
    if len(text) > _MAX_BYTES:
        return "too_long"
    if "\x00" in text or "\ufffd" in text or any(0xD800 <= ord(c) <= 0xDFFF for c in text):
        return "not_text"
    if len(clean_prompt(text)) > most:
        return "too_long"
    for character in text:
        if character in "\t\r\n" or " " <= character <= "~":
            continue
        if character in _DIRECTION:
            return "direction_override"
        kind = unicodedata.category(character)
        if kind == "Cc":
            return "control_characters"
        if kind in ("Cf", "Co", "Cn", "Zl", "Zp"):
            return "invisible_characters"
    return None


def _content(text: str, gate: QualityGate) -> str | None:
    """What is wrong with the words of a cleaned text."""
    text = text.replace("\u2019", "'")
    for code, pattern in (
        ("handle", _HANDLE),
        ("link", _LINK),
        ("hostile", _HOSTILE),
        ("markup", _MARKUP),
        ("code", _CODE),
        ("refusal", _REFUSAL),
    ):
        if pattern.search(text):
            return code
    words = [word.lower() for word in _WORD.findall(text)]
    if _repeats(text, words):
        return "repetition"
    letters = sum(map(str.isalpha, text))
    if letters < 0.6 * len(text.replace(" ", "")) or not words:
        return "not_words"
    if not _is_english(text, words, letters, gate):
        return "language"
    if len(words) < gate.min_words or band_of(text) is LengthBand.NONE:
        return "too_short"
    return None


def _repeats(text: str, words: list[str]) -> bool:
    if _RUN.search(text):
        return True
    if len(words) >= 4 and any(
        one == two == three for one, two, three in zip(words, words[1:], words[2:], strict=False)
    ):
        return True
    return len(words) >= 12 and len(set(words)) < 0.35 * len(words)


def _is_english(text: str, words: list[str], letters: int, gate: QualityGate) -> bool:
    """Script first; then the small words of English against those of its neighbours; then letters that no word has.

    A list of key words without any small word is taken: captions are often written so.
    """
    latin = sum(1 for c in text if c.isalpha() and (c < "\u0250" or "LATIN" in unicodedata.name(c, "")))
    plain = sum(1 for c in text if c.isascii() and c.isalpha())
    if latin < gate.min_english * letters or plain < 0.85 * letters:
        return False
    own = sum(word in _ENGLISH for word in words)
    other = max(sum(word in foreign for word in words) for foreign in _FOREIGN_WORDS.values())
    if other > own or (own == 0 and other > 0):
        return False
    odd = sum(1 for word in words if _LETTER_RUN.search(word) or not set(word) & set("aeiouyáéíóúäöüè"))
    return odd <= 0.34 * len(words)
