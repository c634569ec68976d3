"""How Sphinx makes the site of README.md, the executed notebooks and the docstrings of `helpers`."""

from __future__ import annotations

import gettext
import importlib
import os
import pkgutil
import re
import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.environment import BuildEnvironment
from sphinx.ext.autodoc.mock import mock
from sphinx.transforms import SphinxTransform
from sphinx.util.osutil import relative_uri

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
LOCALES = DOCS / "locales"
sys.path.insert(0, str(ROOT))

from docs.japanese import join_lines  # noqa: E402

project = "ML on Azure Databricks"
html_title = project
extensions = [
    "myst_nb",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
]
# What is in `results` is in `notebooks`, too; README.ja.md is the Japanese site's first page.
exclude_patterns = ["_build", "README.ja.md", "requirements.txt", "results"]
templates_path = ["_templates"]

# `-D language=ja` makes the Japanese site. A paragraph that its catalogue does not have, as after a change, is in English.
locale_dirs = [LOCALES.name]
gettext_compact = False
gettext_location = False

nitpicky = True
# Other packages' names in signatures: links to their documentation would need it to be reachable in each build.
nitpick_ignore_regex = [
    ("py:.*", r"(?!helpers\b).*"),
    # Without a page of their own: what is private, and what a comment explains.
    ("py:.*", r"helpers(\.\w+)*\._\w+"),
    ("py:obj", r"helpers|helpers\.data\.names\.RESERVED_COLUMNS|helpers\.data\.holdout\.HoldOut\.values"),
]
# A name that is imported for type checking only is looked up by its last part, which two modules may share.
suppress_warnings = ["ref.python"]

myst_heading_anchors = 3
highlight_language = "none"
nb_execution_mode = "off"
# What MLflow logs to stderr is about MLflow's own doings; the job runner's copies have it.
nb_output_stderr = "remove"
nb_render_image_options = {"alt": "What the cell above draws"}

add_module_names = False
default_role = "autolink"
autodoc_mock_imports = ["flask", "numpy", "pandas", "sklearn", "werkzeug", "xgboost"]
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
toc_object_entries_show_parents = "hide"
numpydoc_show_class_members = False

html_theme = "pydata_sphinx_theme"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_favicon = "_static/favicon.svg"
html_copy_source = False
html_context = {"default_mode": "auto"}
html_theme_options = {
    "navbar_align": "left",
    "navbar_persistent": ["language", "search-button"],
    "collapse_navigation": True,
    "footer_start": [],
    "footer_end": [],
    "secondary_sidebar_items": ["page-toc"],
    "show_toc_level": 2,
    "logo": {"text": project},
}


# What a package offers is documented with the package, not once more with the module that defines it.
offered: dict[str, list[str]] = {}
documented_as: dict[str, str] = {}
with mock(autodoc_mock_imports):
    for found in pkgutil.walk_packages([str(ROOT / "helpers")], "helpers."):
        if found.ispkg:
            package = importlib.import_module(found.name)
            for name in getattr(package, "__all__", ()):
                module = getattr(getattr(package, name), "__module__", "")
                offered.setdefault(module, []).append(name)
                documented_as[f"{module}.{name}"] = f"{found.name}.{name}"
# A function with the name of its module hides the module, which then has no page of its own.
autosummary_context = {"offered": offered, "hidden": set(documented_as.values())}


def other_language(page: str, english: bool) -> str:
    """Return the address of a page in the other language, from the page itself.

    Parameters
    ----------
    page : str
        Its name, such as "guide/scoring".
    english : bool
        From the English page to the Japanese one, and not back.
    """
    return relative_uri(f"{page}.html", f"{'ja' if english else '..'}/{page}.html")


def map_links(text: str, file: Path, page: Path) -> str:
    """Return the Markdown of a file of the repository with its links to other files leading into the site.

    Modules lead to their page of the API reference, notebooks and READMEs to theirs, and pictures and
    other files to themselves. A folder has no page: what it is called stays.

    Parameters
    ----------
    text : str
    file : pathlib.Path
        Where the links start on GitHub.
    page : pathlib.Path
        Where they start in the site.
    """

    def mapped(match: re.Match[str]) -> str:
        label, target, anchor = match["label"], match["target"], match["anchor"] or ""
        path = Path(os.path.normpath(file.parent / target))
        inside = path.relative_to(ROOT)
        if inside.parts[0] == "helpers" and (path.suffix == ".py" or path.is_dir()):
            return f"[{label}](#{'.'.join(inside.with_suffix('').parts).removesuffix('.__init__')})"
        if path.is_dir():
            return label
        if {path, file} == {ROOT / "README.md", DOCS / "README.ja.md"}:
            # Each language is a site of its own, and Sphinx knows one at a time.
            return f'<a href="{other_language("index", english=file == ROOT / "README.md")}">{label}</a>'
        if path == ROOT / "README.md":
            return f"[{label}](/index.md{anchor})"
        if inside.parts[:2] == ("docs", "results"):
            return f"[{label}](/notebooks/{inside.stem}.ipynb{anchor})"
        if inside.parts[0] == "notebooks":
            return f"[{label}](/{inside.as_posix()}{anchor})"
        return f"[{label}]({Path(os.path.relpath(path, page.parent)).as_posix()}{anchor})"

    return re.sub(r"\[(?P<label>[^\]\[]*)\]\((?!\w+:|#|/)(?P<target>[^)#\s]+)(?P<anchor>#[^)\s]*)?\)", mapped, text)


def name_headings(text: str) -> str:
    """Return README.ja.md with the headings that it names as the Japanese site has them.

    On GitHub and in a workspace, notebooks and guides are in English.

    Parameters
    ----------
    text : str
    """

    def named(match: re.Match[str]) -> str:
        page = match["page"].replace("../", "")
        heading = gettext.translation(page, LOCALES, ["ja"], fallback=True).gettext(match["heading"])
        return f"{match['link']}{match['comma']}*{heading}*"

    link = r"(?P<link>\]\((?P<page>[^):]+)\.(?:ipynb|md)\))"
    return re.sub(link + r"(?P<comma>[,、] ?)\*(?P<heading>[^*]+)\*", named, text)


def _map_included(app: Sphinx, _path: Path, _parent: str, content: list[str]) -> None:
    file = ROOT / "README.md"
    if app.config.language == "ja":
        file = DOCS / "README.ja.md"
        content[0] = name_headings(content[0])
    content[0] = map_links(content[0], file, DOCS / "index.md")


def _map_page(app: Sphinx, page: str, content: list[str]) -> None:
    file = Path(app.env.doc2path(page))
    translatable = ROOT / "notebooks" / file.name
    if page == "index" and app.config.language == "ja":
        content[0] = content[0].replace("../README.md", "README.ja.md")
    if app.builder.name == "gettext":
        if page == "index":
            # Its translation is README.ja.md, which can be read on GitHub.
            content[0] = content[0].partition("```{toctree}")[2].join(("```{toctree}", ""))
        if file.suffix == ".ipynb" and translatable.exists():
            # An output can have text, too, and differs in each run.
            content[0] = translatable.read_text(encoding="utf-8")
    if file.suffix == ".md":
        content[0] = map_links(content[0], file, file)
    if file.suffix == ".ipynb":
        # Its folder is below this one, and not beside it as in the repository.
        content[0] = content[0].replace("](../docs/", "](../")


def _find_offered(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.TextElement
) -> nodes.reference | None:
    """Lead a name with the module that defines it to the page of the package that offers it."""
    name, parts = node.get("reftarget", ""), ()
    while name and name not in documented_as:
        name, _, last = name.rpartition(".")
        parts = (last, *parts)
    if not name:
        return None
    target = ".".join((documented_as[name], *parts))
    found = env.get_domain("py").resolve_any_xref(env, node["refdoc"], app.builder, target, node, content)
    return found[0][1] if found else None


class JoinLines(SphinxTransform):
    """Take the line breaks out of Japanese, which would become spaces."""

    # After the translation, whose transform has 20.
    default_priority = 30

    def apply(self, **_: Any) -> None:
        """Change the texts of each paragraph, heading and cell of a table."""
        if self.config.language != "ja":
            return
        for block in self.document.findall(nodes.TextElement):
            if isinstance(block, nodes.FixedTextElement | nodes.Inline):
                continue
            texts = list(block.findall(nodes.Text))
            for text, joined in zip(texts, join_lines([it.astext() for it in texts]), strict=True):
                if joined != text.astext():
                    text.parent.replace(text, nodes.Text(joined))


def _translate_options(_app: Sphinx, config: Config) -> None:
    if config.language == "ja":
        config.nb_render_image_options = {"alt": "上のセルが描く図"}


# For each page that has a catalogue: how many of its texts there are, and how many are translated.
translated: dict[str, tuple[int, int]] = {}


def _count_translated(app: Sphinx, doctree: nodes.document) -> None:
    # Sphinx gives an image's description its translation, but does not mark it.
    texts = [it for it in doctree.findall(nodes.Element) if "translated" in it and not isinstance(it, nodes.image)]
    if texts and app.config.language == "ja":
        translated[app.env.docname] = len(texts), sum(it["translated"] for it in texts)


def _say_translated(_app: Sphinx, _error: Exception | None) -> None:
    for page, (count, done) in sorted(translated.items()):
        if done < count:
            print(f"{page}: {done} of {count} texts are in Japanese, the others in English; see `make translations`")
    if translated:
        print(
            f"Japanese: {sum(count == done for count, done in translated.values())} of {len(translated)} pages complete"
        )


def _say_language(app: Sphinx, page: str, _template: str, context: dict[str, Any], _tree: object) -> None:
    english = app.config.language != "ja"
    code, name = ("ja", "日本語") if english else ("en", "English")
    context["language_switch"] = {"address": other_language(page, english), "code": code, "name": name}
    if page.startswith("api/modules/"):
        # Its docstrings are in English in both. A screen reader chooses its voice by it.
        context["language"] = "en"


def setup(app: Sphinx) -> None:
    """Have links mapped wherever GitHub's and the site's differ, and each page in two languages."""
    app.connect("config-inited", _translate_options)
    app.connect("include-read", _map_included)
    app.connect("source-read", _map_page)
    app.connect("doctree-read", _count_translated)
    app.connect("missing-reference", _find_offered)
    app.connect("html-page-context", _say_language)
    app.connect("build-finished", _say_translated)
    app.add_transform(JoinLines)
