"""How Sphinx makes the site of README.md, the executed notebooks and the docstrings of `helpers`."""

from __future__ import annotations

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
from sphinx.environment import BuildEnvironment
from sphinx.ext.autodoc.mock import mock

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
sys.path.insert(0, str(ROOT))

project = "ML on Azure Databricks"
html_title = project
extensions = [
    "myst_nb",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
]
# What is in `results` is in `notebooks`, too.
exclude_patterns = ["_build", "requirements.txt", "results"]
templates_path = ["_templates"]

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
        if path == ROOT / "README.md":
            return f"[{label}](/index.md{anchor})"
        if inside.parts[:2] == ("docs", "results"):
            return f"[{label}](/notebooks/{inside.stem}.ipynb{anchor})"
        if inside.parts[0] == "notebooks":
            return f"[{label}](/{inside.as_posix()}{anchor})"
        return f"[{label}]({Path(os.path.relpath(path, page.parent)).as_posix()}{anchor})"

    return re.sub(r"\[(?P<label>[^\]\[]*)\]\((?!\w+:|#|/)(?P<target>[^)#\s]+)(?P<anchor>#[^)\s]*)?\)", mapped, text)


def _map_included(_app: Sphinx, _path: Path, _parent: str, content: list[str]) -> None:
    content[0] = map_links(content[0], ROOT / "README.md", DOCS / "index.md")


def _map_page(app: Sphinx, page: str, content: list[str]) -> None:
    file = Path(app.env.doc2path(page))
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


def _say_language(_app: Sphinx, page: str, _template: str, context: dict[str, Any], _tree: object) -> None:
    if page == "README.ja":
        # A browser chooses Japanese glyphs, and a screen reader its voice, by it.
        context["language"] = "ja"


def setup(app: Sphinx) -> None:
    """Have links mapped wherever GitHub's and the site's differ, and each page say its language."""
    app.connect("include-read", _map_included)
    app.connect("source-read", _map_page)
    app.connect("missing-reference", _find_offered)
    app.connect("html-page-context", _say_language)
