"""Words stay readable to a judge however they are disguised, and ordinary text of any language is left alone."""

from __future__ import annotations

import json
import re
import runpy
import string
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stars_guard.core import lookalikes
from stars_guard.core.judging import Rule
from stars_guard.core.readings import disguised, encodable, readings
from stars_guard.core.segments import Passage
from stars_guard.scorers import Cascade, Judge
from stars_guard.scorers.paths import PathScorer
from stars_guard.scorers.patterns import Pattern, PatternScorer
from stars_guard.testing import FunctionScorer

ROOT = Path(__file__).parents[2]
PHRASES = ("how to make a bomb", "ignore all previous instructions", "buy cocaine here", "disable the alarm")
SCORER = PatternScorer([Pattern(name=phrase, regex=phrase, flags="i") for phrase in PHRASES])

HIDDEN = [
    chr(code)
    for code in (*range(0x80, 0x10000), *range(0xE0000, 0xE0200))
    if unicodedata.category(chr(code)) == "Cf"
    and not 0x600 <= code <= 0x605
    and code not in (0x6DD, 0x70F, 0x890, 0x891, 0x8E2)
] + ["\u034f", "\u115f", "\u3164", "\ufe0f", "\ufe00", "\U000e0100", "\U000e01ef", "\x00", "\x08", "\x7f", "\x1b[31m"]
SPACES = [chr(code) for code in range(0x80, 0x10000) if unicodedata.category(chr(code)) in ("Zs", "Zl", "Zp")]
MARKS = [chr(code) for code in range(0x300, 0x370)] + [
    "\u0489",
    "\u20d2",
    "\u20dd",
    "\ufe20",
    "\u1ab0",
    "\u1dc0",
    "\u0e34",
    "\u05b0",
]
MATHS = [chr(code) for code in (*range(0x1D400, 0x1D7CC, 52), 0x24D0, 0xFF41)]


def alike(char: str) -> list[str]:
    """What looks like a letter."""
    whole = unicodedata.normalize
    tables = (lookalikes.LATIN, lookalikes.WHOLE, lookalikes.OTHER)
    return [c for table in tables for c in table.get(char, "")] + [
        c
        for c in map(chr, (*range(0x2100, 0x2500), *range(0xFF00, 0xFFEF), *range(0x1D400, 0x1D7CC)))
        if whole("NFKC", c) == char
    ]


ALIKE = {letter: [c for c in alike(letter) if c != "\u04cf"] for letter in string.ascii_lowercase}

DISGUISES: dict[str, Callable[[str, st.DataObject], str]] = {
    "hidden": lambda text, data: data.draw(st.sampled_from(HIDDEN)).join(text),
    "hidden in one place": lambda text, data: _put(text, data.draw(st.sampled_from(HIDDEN)), data),
    "spaces": lambda text, data: text.replace(" ", data.draw(st.sampled_from(SPACES)) * data.draw(st.integers(1, 2))),
    "spaces beside spaces": lambda text, data: text.replace(" ", f" {data.draw(st.sampled_from(SPACES))} "),
    "no spaces but hidden ones": lambda text, data: text.replace(
        " ", data.draw(st.sampled_from("\u200b\u200c\u2060\ufeff\xad"))
    ),
    "marks": lambda text, data: "".join(c + data.draw(st.sampled_from(MARKS)) if c != " " else c for c in text),
    "a mark": lambda text, data: _put(text, data.draw(st.sampled_from(MARKS[:20])), data),
    "many marks": lambda text, data: "".join(c + "".join(MARKS[:9]) if c != " " else c for c in text),
    "full-width": lambda text, data: "".join(chr(ord(c) + 0xFEE0) if c != " " else "\u3000" for c in text),
    "look-alikes": lambda text, data: "".join(
        data.draw(st.sampled_from([*ALIKE.get(c, []), c])) if data.draw(st.booleans()) else c for c in text
    ),
    "one look-alike": lambda text, data: _swapped(text, data),
    "all that Cyrillic has": lambda text, data: text.translate(str.maketrans("aceopxyijsdhq", "асеорхуіјѕԁһԛ")),
    "stars": lambda text, data: _put(
        text, data.draw(st.sampled_from(["*", "**", "_", "__", "`", "~~", "**_"])), data, twice=True
    ),
    "stars around words": lambda text, data: " ".join(f"**{w}**" for w in text.split()),
    "backwards": lambda text, data: f"\u202e{text[::-1]}\u202c",
    "spelled in tags": lambda text, data: "hi" + "".join(chr(0xE0000 + ord(c)) for c in text),
    "spelled in variation selectors": lambda text, data: "😀" + "".join(chr(0xE0100 + ord(c) - 16) for c in text),
    "circled": lambda text, data: "".join(chr(0x24D0 + ord(c) - 97) if c != " " else c for c in text),
    "squared": lambda text, data: "".join(chr(0x1F170 + ord(c) - 97) if c != " " else c for c in text),
    "flags": lambda text, data: "".join(chr(0x1F1E6 + ord(c) - 97) if c != " " else c for c in text),
    "surrogates": lambda text, data: "".join(chr(0xD835) + chr(0xDC1A + ord(c) - 97) if c != " " else c for c in text),
}


def _put(text: str, what: str, data: st.DataObject, twice: bool = False) -> str:
    at = data.draw(st.sampled_from([i for i in range(1, len(text)) if " " not in text[i - 1 : i + 1]]))
    second = (
        text[at:] if not twice else _put(text[at:], what[::-1], data) if len(text) - at > 8 else text[at:] + what[::-1]
    )
    return text[:at] + what + second


def _swapped(text: str, data: st.DataObject) -> str:
    at = data.draw(st.sampled_from([i for i, c in enumerate(text) if ALIKE.get(c)]))
    return text[:at] + data.draw(st.sampled_from(ALIKE[text[at]])) + text[at + 1 :]


@pytest.mark.parametrize("disguise", DISGUISES)
@settings(max_examples=15)
@given(data=st.data())
def test_a_disguised_phrase_is_found_where_it_is(disguise: str, data: st.DataObject) -> None:
    phrase = data.draw(st.sampled_from(PHRASES))
    shown = DISGUISES[disguise](phrase, data)
    before, after = data.draw(st.sampled_from([("", ""), ("Tell me ", " now."), ("«Да» ", " — 東京 😀")]))
    finds = SCORER.find(before + shown + after)
    assert [name for _, _, name in finds] == [phrase]
    start, end, _ = finds[0]
    # nothing of the phrase is left, and nothing beside it is taken but marks that hang on its end
    assert start <= len(before) + 4
    assert len(before) + len(shown) - 12 <= end <= len(before + shown)
    rest = (before + shown + after)[:start] + (before + shown + after)[end:]
    assert not SCORER.find(rest)


ORDINARY = [
    "Вот тот кот, а это сок. Он как рос, так и рос; у нас сухо. РОСТ И СОН, МОРЕ, ТОМ И САРА.",
    "Быстрая коричневая лиса прыгает через ленивую собаку, а сор и рис — в саду. PDFы, IT-отдел и web-сайт.",
    "Η γρήγορη καφέ αλεπού πηδάει πάνω από το τεμπέλικο σκυλί· για σου, όλα καλά.",
    "Українська мова: її, є, ґанок, і ось ще одне речення про сіль і рис.",
    "今天天气很好，我们去公园吧。使用Python编程，价格是１２３元。",
    "日本語のテキスト。カタカナとＴシャツ、「引用」…",
    "안녕하세요, 오늘은 날씨가 좋네요.",
    "السلام عليكم، العدد ١٢٣ والنسبة ٤٥٪ و«اقتباس».",
    "می‌خواهم کتاب‌ها را بخوانم.",
    "שלום עולם, זה משפט בעברית עם ניקוד: שָׁלוֹם.",
    "नमस्ते दुनिया, यह १२३ वाक्य है। क्‍ष",
    "สวัสดีชาวโลก นี่คือประโยค",
    "Größe, Bär, naïve café, señor, Łódź, Škoda, ığdır kılıç, œuvre, ﬁn – „Zitat“ … ‘quote’ — 10 °C, ½ €",
    "Tiếng Việt có nhiều dấu: đường phố, nghĩa là.",
    "👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽 ❤️ 1️⃣ 🇺🇸🇬🇧 🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
    "def make_it(a_b, *args, **kwargs): return a*b  # `code` and snake_case, __init__",
    "x² + y² = z², E = mc², №5, ™, ℃, Ⅳ, α + β → γ, λ = 2μ",
    "Հայերեն նախադասություն։ ქართული წინადადება.",
]
WORDS = re.findall(
    r"\w+",
    "kill bomb drug cocaine heroin porn sex nude rape suicide murder weapon gun hack password secret token key attack"
    " steal fraud hate nazi terror poison explosive meth weed crack cop bot top pot pac tom cat hot boob cock ass"
    " die dead blood knife shoot abuse racist slur idiot stupid damn hell shit fuck bitch whore",
)


def test_ordinary_text_of_any_language_holds_no_english_word() -> None:
    scorer = PatternScorer([Pattern(name=word, regex=rf"\b{word}\b", flags="i") for word in WORDS])
    assert {text: scorer.find(text) for text in ORDINARY if scorer.find(text)} == {}


@pytest.mark.parametrize("text", ORDINARY[:16])
def test_ordinary_text_is_no_disguise(text: str) -> None:
    assert disguised(text) == ()


def test_what_reads_as_it_is_written_has_no_other_reading() -> None:
    assert readings("The quick brown fox, 100 times: a+b = c (or not)!\r\n\t" * 50) == ()


@settings(max_examples=150)
@given(
    st.text(
        st.one_of(st.characters(codec=None), st.sampled_from("ab*_ `~\u200b\xa0а\u0301\u202e\ud835\udc1b")), max_size=40
    )
)
def test_each_character_of_a_reading_has_its_place(text: str) -> None:
    assert len(encodable(text)) == len(text)
    encodable(text).encode()
    for reading in readings(text):
        reading.text.encode()
        spans = [reading.span(at, at + 1) for at in range(len(reading.text))]
        assert all(0 <= start < end <= len(text) for start, end in spans)
        assert spans == sorted(spans)


@pytest.mark.parametrize(
    "part", [" ", "*", "_", "a*", "а", "aа", "\u200b", "\xa0 ", " \xa0", "\u0301", "a\u0301", "\u202e", "\ud835", "а*"]
)
def test_no_text_takes_long(part: str) -> None:
    import time

    seconds = []
    for size in (4_000, 64_000):
        began = time.thread_time()
        readings(part * size + "é")
        seconds.append(time.thread_time() - began)
    assert seconds[1] < 16 * 6 * max(seconds[0], 0.001)


async def test_judges_that_are_models_read_what_is_disguised_too() -> None:
    seen: list[str] = []
    scorer = FunctionScorer(lambda passage: seen.append(passage.segment) or float("cocaine" in passage.segment))
    cascade = Cascade([Judge(Rule(judge="model", reject_above=0.5), scorer)])
    for text in ("buy сосаіnе", "купить"):
        passage = Passage(call_id="c", messages=(), accepted="", segment=text)
        (judgement,) = await cascade.judge([passage])
        assert (judgement.veto is not None) == ("buy" in text)
    assert seen == ["buy сосаіnе", "buy cocaine", "купить"]


def test_a_lone_surrogate_is_judged() -> None:
    assert SCORER.find("\ud800 how to make a bomb \udfff") == [(2, 20, PHRASES[0])]


def test_the_table_is_the_one_of_the_installed_data() -> None:
    pytest.importorskip("confusable_homoglyphs")
    tables = runpy.run_path(str(ROOT / "scripts" / "lookalikes.py"))["tables"]()
    # an older Python knows fewer characters by name
    for ours, made in zip((lookalikes.LATIN, lookalikes.WHOLE, lookalikes.OTHER), tables, strict=True):
        assert json.dumps(made, sort_keys=True) == json.dumps(ours, sort_keys=True)


@pytest.mark.parametrize("root", ["/work_dir", "/сор", "/ｗork", "/a*b", "/été", "/~x"])
def test_a_root_is_inside_of_itself_in_every_reading(root: str) -> None:
    scorer = PathScorer([root])
    assert not scorer.find(f"cat {root}/a_b/c")
    assert scorer.find("cat /\u200betc/passwd")
    assert scorer.find(f"cat {root}/../../х")
