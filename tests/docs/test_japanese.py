"""The Japanese site: translations keep code and links, and line breaks do not become spaces."""

import re
from pathlib import Path

import pytest

from docs.japanese import join_lines
from tests.docs.catalogues import code, links, read

ROOT = Path(__file__).parents[2]
CATALOGUES = ROOT / "docs" / "locales" / "ja" / "LC_MESSAGES"
PAGES = sorted(CATALOGUES.rglob("*.po"))


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_a_translation_has_the_code_and_the_links_of_its_text(path):
    done = [entry for entry in read(path) if entry.translated and not entry.fuzzy]
    kept = [(code(it.english), links(it.english)) == (code(it.translated), links(it.translated)) for it in done]
    wrong = [it.translated for it, right in zip(done, kept, strict=True) if not right]
    assert wrong == []


def test_the_texts_of_a_catalogue_are_read_as_they_are_written(tmp_path):
    catalogue = tmp_path / "page.po"
    catalogue.write_text(
        '#\n#, fuzzy\nmsgid ""\nmsgstr ""\n"Language: ja\\n"\n\n'
        '#, fuzzy\nmsgid "A \\"word\\" and `code`"\nmsgstr "語"\n\n'
        'msgid ""\n"[a](b.md), "\n"``c`d``"\nmsgstr ""\n',
        encoding="utf-8",
    )
    first, second = read(catalogue)
    assert first == (True, 'A "word" and `code`', "語") and second == (False, "[a](b.md), ``c`d``", "")
    assert code(first.english) == ["code"] and code(second.english) == ["c`d"]
    assert [target for target, _ in links(second.english)] == ["b.md"]


def test_there_is_a_catalogue_for_each_page_of_the_guide_and_each_notebook():
    pages = [path.relative_to(ROOT / "docs") for path in (ROOT / "docs" / "guide").glob("*.md")]
    pages += [path.relative_to(ROOT) for path in (ROOT / "notebooks").glob("*.ipynb")]
    pages += [Path("guide"), Path("notebooks"), Path("api/index")]
    # `make translations` creates a missing catalogue. You delete the catalogue of a page that you have deleted.
    assert {it.relative_to(CATALOGUES).with_suffix("") for it in PAGES} == {it.with_suffix("") for it in pages}


def test_sphinx_keeps_its_default_of_leaving_out_fuzzy_translations():
    assert "gettext_allow_fuzzy_translations" not in (ROOT / "docs" / "conf.py").read_text()


@pytest.mark.parametrize(
    ("texts", "joined"),
    [
        (["日本語の\n行"], ["日本語の行"]),
        (["読点、\nMLflow"], ["読点、MLflow"]),
        (["初回の\n", "make", " で"], ["初回の\n", "make", " で"]),
        (["次は", "太字", "\n", "です"], ["次は", "太字", "", "です"]),
        (["MLflow\nの UI", "。\n", "code"], ["MLflow\nの UI", "。", "code"]),
        (["An English\nsentence"], ["An English\nsentence"]),
    ],
)
def test_a_line_break_between_japanese_characters_does_not_become_a_space(texts, joined):
    assert join_lines(texts) == joined


def test_make_docs_puts_the_japanese_site_into_the_folder_that_is_published():
    makefile = (ROOT / "Makefile").read_text()
    english = re.search(r"sphinx .*-W .* docs (\S+/html)$", makefile, re.M)[1]
    japanese = re.search(r"sphinx .*-W .*-D language=ja docs (\S+)$", makefile, re.M)[1]
    assert f"\tmv {japanese} {english}/ja\n" in makefile
