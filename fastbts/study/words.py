"""What people write about a series, in several languages: its weighting, contrast agent, purpose.

Each text is judged alone, the first that says something counts: a protocol is often named after
the whole examination ("BRAIN W WO CONTRAST").
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

_WORD = re.compile(r"[^\W_]+")
_T1 = r"\w{0,4}t1(?![\d])\w*|mprage|bravo|f?spgr|vibe|tfl|[23]d ?tfe|thrive|lava"
_T2 = r"\w{0,4}t2(?![\d])\w*"
_FLAIR = r"t2f\w*|\w*flair\w*|tirm|dark ?fl\w*|fluid attenuated|fla"

# Czech, Danish, Dutch, English, French, German, Italian, Norwegian, Polish, Portuguese, Russian,
# Spanish, Swedish, Turkish, Chinese, Japanese, Korean.
_AGENT = (
    r"km|gd|gad|gado\w*|dotarem|magnevist|prohance|multihance|clariscan|omniscan|mdc|\w*t1\w*ce|"
    r"t1(?:gd|km|c)|gdt1\w*|ct1\w*|ce|enh\w*|[ck]ontras[tc]\w*|t1\w* c|контраст\w*|ку"
)
_AFTER = r"nach|apres|dopo|despues|pos|apos|depois|po|na|efter|etter|sonrasi|после"
_WITH = r"with|w|mit|avec|con|com|met|med|s|с|injecte\w*|iniettat\w*|\w*kontrastli"
_WITHOUT = (
    r"without|wo|non?|un\w*|pre\w*|plain|native?|nativo|natif|ohne|vor|sans|avant|sin|antes|senza|"
    r"prima|sem|bez|przed|pred|zonder|voor|blanco|utan|uten|uden|basale?|onces\w*|"
    r"\w*kontrastsiz|без|до|нативн\w*"
)
_CJK_AGENT, _CJK_WITHOUT = r"增强|增強|造影|조영", r"平扫|平掃|単純|造影前|조영전"

_OTHERS = {
    "a localizer": r"loc|local\w*|lokali\w*|scout|survey|plan ?scan|topogram\w*|reper\w*|3 ?plane|"
    r"pilot|calibration|cal|shim\w*|asset|локал\w*",
    "diffusion": r"dwi|dti|dki|ivim|diff\w*|difus\w*|dyfuz\w*|adc|trace\w*|col ?fa|fa|"
    r"b ?\d{3,4}|ep2d|диффуз\w*",
    "susceptibility-weighted (T2*)": r"swi\w*|swan|swp|ven ?bold|t2\w*star|t2 ?star|star|"
    r"hemo\w*|hemflash|haem\w*|suscept\w*|medic|merge",
    "perfusion": r"perf\w*|dsc|dce|pwi|p?c?asl|r?cbv|r?cbf|mtt|ttp|tmax|twist|dynam\w*",
    "an angiography": r"tof|angio\w*|mra|mrv|mrangio\w*|venog\w*|tricks|phase contrast|pc ?[23]d",
    "functional": r"bold|fmri|resting|task",
    "spectroscopy": r"svs|csi|mrs|spectro\w*|press",
    "fat suppressed by inversion (STIR)": r"stir",
    "proton density": r"pd|pdw|dp|proton\w*|densit\w*",
    "of another contrast": r"dir|ciss|fiesta|drive|trufi|b ?ffe|mp2rage|inv ?[12]|magic|t[12]map|"
    r"synth\w*|elast\w*",
    "calculated from others": r"mpr|reform\w*|rekonst\w*|mip|mnip|minip|projection|sub|subtr\w*|"
    r"substr\w*|soustr\w*|fusion|mean|average|map|screen ?save|key ?image\w*|d?seg|"
    r"segmentation|\w*mask|labels?|roi|prob\w*",
    "of the spine or neck": r"\w*spine|spinal\w*|hws|bws|lws|\w*wirbel\w*|cervic\w*|lumb\w*|"
    r"thorac\w*|rachis|column\w*|colonna|coluna|kregosl\w*|larynx|carot\w*|позвон\w*",
}
"""Why a series is of no use -> words."""
FOR_PHYSICS = (
    "diffusion",
    "susceptibility-weighted (T2*)",
    "fat suppressed by inversion (STIR)",
    "proton density",
)
"""Reasons that echo, repetition and inversion time know better, where they are given."""


def plain(text: str) -> str:
    """Lower case without accents, words separated by one space, with one at each end."""
    text = unicodedata.normalize("NFKD", text.casefold())
    text = "".join(letter for letter in text if not unicodedata.combining(letter))
    text = unicodedata.normalize("NFC", text)  # Korean syllables
    text = re.sub(r"т(?=[12])", "t", text).replace("ı", "i")
    text = re.sub(r"t2\s*\*", " t2star ", text)
    text = re.sub(r"w\s*/\s*o\b", " wo ", text)
    text = re.sub(r"\+\s*(?:c|gd|gad|km|ce)\b|\b(?:c|gd|km)\s*\+", " with contrast ", text)
    text = re.sub(r"\bc\s*-(?=\s|$)|(?<=\s)-\s*c\b", " without contrast ", text)
    text = re.sub(r"(?<![^\W_])(?:pre|post)[\s_\-.]*op\w*", " ", text)
    return f" {' '.join(_WORD.findall(text))} "


def _says(pattern: str, text: str) -> bool:
    return re.search(rf"(?<= )(?:{pattern})(?= )", text) is not None


def weighting(texts: Sequence[str]) -> str | None:
    """ "flair", "t1" or "t2", by the first text that names one."""
    for text in map(plain, texts):
        flair, t1, t2 = (_says(pattern, text) for pattern in (_FLAIR, _T1, _T2))
        if t1 and not t2:
            return "t1"  # T1 FLAIR is a T1
        if flair:
            return "flair"
        if t2 and not t1:
            return "t2"
    return None


def contrast(texts: Sequence[str]) -> bool | None:
    """Whether a text says that contrast agent was given, or that it was not."""
    for text in map(plain, texts):
        agent = _says(_AGENT, text) or bool(re.search(_CJK_AGENT, text))
        given = _says(r"post\w*", text) or (agent and _says(f"{_AFTER}|{_WITH}", text))
        without = _says(_WITHOUT, text) or bool(re.search(_CJK_WITHOUT, text))
        if without and given:
            continue  # "with and without": of the whole examination
        if without or given or agent:
            return not without
    return None


def other_purpose(texts: Sequence[str]) -> str | None:
    """Why a series is of no use, by any of its texts; None if nothing speaks against it."""
    reasons = (
        why for text in map(plain, texts) for why, words in _OTHERS.items() if _says(words, text)
    )
    return next(reasons, None)
