"""What a file's name says: which modality, of which case.

Two rules. By the narrow rule the last word names the modality, as in BraTS, BIDS and UPenn. By the
wide rule any word may, as other tools write it: "T1CE_to_SRI_brain" (CaPTk), "CT1_r2s_bet_reg"
(HD-GLIO), "hdbet_brats-space_fla" (BraTS-Toolkit), "t1_post", "t2_flair", "0001.T1".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

ENDINGS = {
    "flair": "flair", "t2f": "flair",
    "t1": "t1", "t1n": "t1", "t1w": "t1",
    "t1ce": "t1ce", "t1c": "t1ce", "t1gd": "t1ce",
    "t2": "t2", "t2w": "t2",
}  # fmt: skip
"""Last word of a file's name -> modality, by the narrow rule."""

_IMAGE = re.compile(r"(?P<stem>.+)\.nii(?:\.gz)?", re.IGNORECASE)
_NAMED = re.compile(rf"(?:(?P<stem>.*)[_-])?(?P<kind>{'|'.join(ENDINGS)})", re.IGNORECASE)
_NUMBERED = re.compile(r"(?P<stem>.*)_(?P<channel>\d{4})", re.IGNORECASE)
_CE_ENTITY = re.compile(r"(?:^|_)ce-", re.IGNORECASE)  # BIDS entity of a contrast-enhanced image
# BIDS entities that say nothing about the contrast: subject, session, run, target spaces.
_OTHER_ENTITY = re.compile(
    r"(?:^|_)(?:sub|ses|run|echo|part|chunk|space|from|to|mode|res|den|atlas)-[^_.]*(?=[_.]|$)"
)
_TARGET = re.compile(r"[_\-.](?:to|in|on|onto)[_\-.][a-z0-9]+")  # FLAIR_to_T1: the T1 grid

_AGENT = "ce|c|gd|gad|gado|post|postgd|postgad|postcontrast|contrast|km|enhanced"
_WORDS = {
    "flair": re.compile(r"fl|fla|flair|t2f|t2w?flair|flairt2w?|tirm|darkfluid"),
    "t1ce": re.compile(rf"(?:ce|c|gd|gad)t1w?|t1w?(?:{_AGENT})"),
    "t1": re.compile(r"t1(?:w|wi)?(?:n|pre|native)?"),
    "t2": re.compile(r"t2(?:w|wi)?"),
}
_ENHANCED = re.compile(rf"(?!c$)(?:{_AGENT}|gadolinium|postcon|mdc)")
_PLAIN = re.compile(r"pre|precontrast|precon|pregd|pregad|native|non|no|without|plain|unenhanced|"
                    r"nonenhanced|noncontrast|nongd")  # fmt: skip
_OPERATION = re.compile(r"(pre|post)[_\-.\s]*(?:op|operative|surgery|surgical)(?![a-z])")
_TIME = re.compile(r"preop|postop|baseline|followup|follow|fu|initial|recurrence|before|after")
_NO_IMAGE = re.compile(
    r"mask|brainmask|seg|dseg|segmentation|labels?|prob|probs|probseg|pve|map|xfm|warp|"
    r"affine|field|biasfield|overlay|roi|lesion|tumou?r|gt|truth|pred|prediction|diff|difference|"
    r"subtraction|"
    r"star|swi|swan|dwi|dti|adc|fa|dsc|dce|asl|perf|perfusion|bold|pd|pdw|tof|stir|dir|mp2rage"
)
"""Words of derived files and of other sequences."""
_ORIENTATION = re.compile(r"ax|axial|tra|transverse|sag|sagittal|cor|coronal|2d|3d")


@dataclass(frozen=True)
class Claim:
    """A file whose name says which modality of which case it is."""

    modality: str
    case: str
    name: str
    others: frozenset[str] = frozenset()
    """By the wide rule: the words that say nothing about the modality."""


def is_image(name: str) -> bool:
    """Whether this is the name of a NIfTI file that is not hidden."""
    return not name.startswith(".") and _IMAGE.fullmatch(name) is not None


def is_numbered(name: str) -> bool:
    """Whether this is nnU-Net's name of a channel."""
    return is_image(name) and _NUMBERED.fullmatch(_stem(name)) is not None


def is_derived(name: str) -> bool:
    """Whether a word says that this is no image of FLAIR, T1, T1ce or T2, such as a mask."""
    return any(_NO_IMAGE.fullmatch(word) for word in _words(_stem(name)))


def numbered_claims(names: Iterable[str], order: Sequence[str]) -> Iterator[Claim]:
    """nnU-Net: `case_0000` to `case_0003` are the modalities of `order`."""
    for name in filter(is_image, names):
        match = _NUMBERED.fullmatch(_stem(name))
        if match and int(match["channel"]) < len(order):
            yield Claim(order[int(match["channel"])], _case_of(match["stem"]), name)


def suffix_claims(names: Iterable[str], modalities: Sequence[str]) -> Iterator[Claim]:
    """Files whose name, or its end after `_` or `-`, is one of these modalities, the longest."""
    longest = sorted(modalities, key=len, reverse=True)
    for name in filter(is_image, names):
        for modality in longest:
            match = re.fullmatch(rf"(?:(.*)[_-])?{re.escape(modality)}", _stem(name), re.IGNORECASE)
            if match:
                yield Claim(modality, _case_of(match[1] or ""), name)
                break


def narrow_claims(names: Iterable[str]) -> Iterator[Claim]:
    """Files whose last word is a modality; in BIDS, a `ce-` entity says that a T1w is a T1ce."""
    for name in filter(is_image, names):
        match = _NAMED.fullmatch(_stem(name))
        if match:
            stem, modality = match["stem"] or "", ENDINGS[match["kind"].lower()]
            enhanced = modality == "t1" and _CE_ENTITY.search(stem)
            yield Claim("t1ce" if enhanced else modality, _case_of(stem), name)


def wide_claims(names: Iterable[str]) -> Iterator[Claim]:
    """Files with a modality in any word of their name; words of all files say nothing."""
    words = {name: _words(_stem(name)) for name in names if is_image(name)}
    words = {
        name: each for name, each in words.items() if _modalities(each) and not is_derived(name)
    }
    common = set.intersection(*map(set, words.values())) if len(words) > 1 else set()
    for name, each in words.items():
        distinct = [word for word in each if word not in common]
        modality = _modality(distinct) or _modality(each)
        if modality:
            case = _case_of(_stem(name)) if _bids(name) else _rest(distinct, modality)
            yield Claim(modality, case, name, frozenset(_others(distinct, modality)))


def _stem(name: str) -> str:
    match = _IMAGE.fullmatch(name)
    return match["stem"] if match else name


def _bids(name: str) -> bool:
    return name.lower().startswith("sub-")


def _case_of(stem: str) -> str:
    """What all files of a case share: the beginning of the name; in BIDS, subject and session."""
    entities = [part for part in stem.lower().split("_") if part.startswith(("sub-", "ses-"))]
    return "_".join(entities) or stem.lower()


def _words(stem: str) -> list[str]:
    """The words of a name, without those that only say where the image was registered to."""
    text = _OTHER_ENTITY.sub("", stem.lower()) if _bids(stem) else stem.lower()
    text = _OPERATION.sub(r"\1op", text)
    return [word for word in re.split(r"[_\-.\s+]+", _TARGET.sub("", text)) if word]


def _modalities(words: Sequence[str]) -> set[str]:
    return {m for m, pattern in _WORDS.items() if any(pattern.fullmatch(word) for word in words)}


def _modality(words: Sequence[str]) -> str | None:
    """The modality, or None if the words contradict each other."""
    found = _modalities(words)
    if found == {"flair", "t2"}:  # FLAIR is a T2 with suppressed fluid: t2_flair
        return "flair"
    if "t1ce" in found and found <= {"t1", "t1ce"}:
        return "t1ce"
    if found != {"t1"}:
        return found.pop() if len(found) == 1 else None
    at = next(i for i, word in enumerate(words) if _WORDS["t1"].fullmatch(word))
    enhanced = words[at + 1 : at + 2] == ["c"] or any(_ENHANCED.fullmatch(w) for w in words)
    plain = any(_PLAIN.fullmatch(word) for word in words)
    if plain and any(word.startswith("post") for word in words):
        return None
    return "t1ce" if enhanced and not plain else "t1"


def _rest(words: Sequence[str], modality: str) -> str:
    """What may be the case's name: the words before the modality; numbers and times after it."""
    at = next((i for i, word in enumerate(words) if _modalities([word])), len(words))
    later = (word for word in words[at:] if re.search(r"\d", word) or _TIME.fullmatch(word))
    rest = [*words[:at], *later]
    return "_".join(_others(rest, modality))


def _others(words: Iterable[str], modality: str) -> Iterator[str]:
    """The words that say neither modality nor orientation.

    "pre" and "post" tell T1 from T1ce; of FLAIR and T2 they may be the time of a session.
    """
    contrast = (_ENHANCED, _PLAIN) if modality in ("t1", "t1ce") else ()
    known = (*_WORDS.values(), _ORIENTATION, *contrast)
    return (word for word in words if not any(pattern.fullmatch(word) for pattern in known))
