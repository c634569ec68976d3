"""The pages of executed notebooks link to each other."""

import re

import pytest
from nbformat.v4 import new_markdown_cell, new_notebook

from helpers.jobs import html
from helpers.jobs.results import SUCCESS, TaskResult

TEXT = "[set up](01_setup.ipynb), [train](02_train.ipynb), [curves](02_train.ipynb#curves), [MLflow](https://mlflow.org/a.ipynb)"


@pytest.fixture
def pages(tmp_path):
    """The pages of three jobs: 02_train has run twice, and 01_setup has not."""
    tasks = []
    for job, name in [("retrain", "02_train"), ("train", "02_train"), ("score", "04_batch_score")]:
        page = tmp_path / job / f"{name[3:]}.html"
        page.parent.mkdir()
        html.write_html(new_notebook(cells=[new_markdown_cell(TEXT)]), name, tmp_path, page)
        tasks.append(TaskResult(SUCCESS, notebook=f"{name}.ipynb", html=str(page)))
    html.link_pages([TaskResult(SUCCESS), *tasks])
    return [tmp_path / job for job in ("retrain", "train", "score")]


def test_a_link_leads_to_the_last_page_of_the_notebook_and_without_one_it_is_text(pages):
    retrain, train, score = (next(folder.iterdir()) for folder in pages)
    for page, target in [(retrain, "../train/train.html"), (train, "train.html"), (score, "../train/train.html")]:
        text = page.read_text(encoding="utf-8")
        body = text[text.index("<body") :]
        assert re.findall(r'<a href="([^"]+)"', body) == [target, target, "https://mlflow.org/a.ipynb"]
        assert (page.parent / target).resolve() == train and "set up, " in body
