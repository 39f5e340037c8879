"""What descriptions in many languages say."""

from __future__ import annotations

import pytest

from fastbts.study.words import contrast, other_purpose, weighting


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *(("t1_mprage_tra_p2 KM", "t1"), ("sT1W_3D_TFE", "t1"), ("Sag T1 FLAIR", "t1")),
        *(("MPRAGE", "t1"), ("Ax FSPGR 3D", "t1"), ("Т1 с контрастом", "t1")),
        *(
            ("ax t2_tirm_tra_dark-fluid", "flair"),
            ("AX T2 FLAIR", "flair"),
            ("FLAIR_lang", "flair"),
        ),
        *(("T2 TSE TRA 5mm", "t2"), ("sT2W_TSE", "t2"), ("Cor T2 DRIVE", "t2")),
        *(("AX BRAIN", None), ("t10 level", None), ("", None)),
    ],
)
def test_weighting(text: str, expected: str | None) -> None:
    assert weighting([text]) == expected


@pytest.mark.parametrize(
    "text",
    [
        *("t1_mprage_tra_p2 KM", "T1 SE nach KM", "T1 Kontrastmittel", "t1 tra mit KM"),  # German
        *("EG T1 3D GADO", "Ax T1 avec gadolinium", "T1 après injection gado"),  # French
        *("T1 con contraste", "T1 después de contraste"),  # Spanish
        *("T1 con mdc", "T1 dopo mdc", "T1 com contraste", "T1 pós contraste"),  # It., Portuguese
        *("T1 po kontraście", "T1 s kontrastem", "T1 med kontrast", "T1 na contrast"),
        *("T1 с контрастом", "t1 sag kontrastlı", "T1 增强", "T1W 造影", "T1 조영"),
        *("AX T1 +C", "Ax T1 FSE +GAD", "AX T1 POST", "T1 C+", "T1W_3D_TFE_GD", "t1ce", "CT1"),
    ],
)
def test_words_for_contrast_agent(text: str) -> None:
    assert contrast([text]) is True


@pytest.mark.parametrize(
    "text",
    [
        *("T1 nativ sag", "T1 mprage ohne KM", "t1 vor KM"),  # German
        *("T1 SE sans injection", "T1 avant gado", "T1 non injecté"),  # French
        *("T1 sin contraste", "T1 senza mdc", "T1 prima del contrasto", "T1 sem contraste"),
        *("T1 przed kontrastem", "T1 bez kontrastu", "T1 utan kontrast", "T1 zonder contrast"),
        *("T1 без контраста", "t1 kontrastsız", "T1 öncesi", "T1 平扫"),
        *("AX T1 PRE", "AX T1 C-", "T1 w/o", "AX T1 without contrast", "T1 unenhanced"),
    ],
)
def test_words_for_no_contrast_agent(text: str) -> None:
    assert contrast([text]) is False


@pytest.mark.parametrize(
    "text", ["BRAIN W WO CONTRAST", "t1_mprage", "3D_T1_MPRAGE_post-op", "Sag T1 FLAIR"]
)
def test_words_that_say_nothing_about_contrast_agent(text: str) -> None:
    assert contrast([text]) is None


def test_the_first_text_that_says_something_counts() -> None:
    assert contrast(["AX T1", "BRAIN W WO CONTRAST", "t1 km"]) is True
    assert weighting(["AX BRAIN", "t2_tse"]) == "t2"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        *((text, "a localizer") for text in ("localizer", "Survey", "Lokalisator", "repérage")),
        *((text, "diffusion") for text in ("ep2d_diff_3scan_trace", "DWI b1000", "difusión")),
        *((text, "susceptibility") for text in ("SWI_Images", "Ax T2*", "t2_fl2d_tra_hemo")),
        *((text, "calculated") for text in ("MPR tra t1 km", "T1 SUB", "t1 reformat")),
        *((text, "spine") for text in ("T2 HWS sag", "T1 lumbar", "t2 rachis")),
        *(("Perfusion dsc", "perfusion"), ("TOF_3D", "angiography"), ("Cor T2 STIR", "STIR")),
        *(("PD TSE", "proton density"), ("3D DIR", "another contrast"), ("svs_press", "spectro")),
    ],
)
def test_other_purposes(text: str, why: str) -> None:
    assert why in (other_purpose([text]) or "")


@pytest.mark.parametrize("text", ["t1_mprage_tra_p2 KM", "AX T2 FLAIR", "T2 TSE", "T1 nach KM"])
def test_images_of_use_have_no_other_purpose(text: str) -> None:
    assert other_purpose([text]) is None
