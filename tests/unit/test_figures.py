"""What a reader notices of the plots: can everything be read, told apart, and does no setting of the user change them?"""

import io
import itertools
import json
import math

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.text import Annotation

from helpers import figures
from helpers.monitoring import plots as monitoring
from helpers.monitoring.baseline import Baseline
from helpers.monitoring.bins import CategoryBins, Counted, NumberBins
from helpers.serving.health import HealthCheck
from helpers.serving.plots import rollout
from helpers.training import plots as training

LONG = [f"measurement_of_the_average_temperature_in_the_hall_sensor_{number:03}" for number in range(30)]


def classes(number, rows=300):
    random = np.random.default_rng(number)
    names = ["benign", "malignant"] if number == 2 else [f"class {place}" for place in range(number)]
    truth = random.integers(number, size=rows)
    scores = random.random((rows, number)) + 0.7 * np.eye(number)[truth]
    return np.array(names)[truth], scores / scores.sum(axis=1, keepdims=True), names


def predicted(number):
    labels, probabilities, names = classes(number)
    return labels, np.array(names)[probabilities.argmax(axis=1)], names


def long_classes():
    labels, probabilities, names = classes(3)
    return np.array([LONG[names.index(label)] for label in labels]), probabilities, LONG[:3]


def trials(number):
    random = np.random.default_rng(1)
    outcomes = ["pruned" if place % 4 == 3 else "complete" for place in range(number)]
    return pd.DataFrame({"outcome": outcomes, "tuning_loss": 0.1 + 0.2 * random.random(number)})


def losses(epochs, held_out=True):
    falling = 0.6 * np.exp(-np.arange(epochs) / 4)
    columns = {"epoch_loss": falling + 0.08} | ({"val_log_loss": falling + 0.081} if held_out else {})
    return pd.DataFrame(columns, index=range(1, epochs + 1))


def judged(windows, features, versions=(1,)):
    random = np.random.default_rng(2)
    names = [f"2026-{1 + place // 28:02}-{1 + place % 28:02}" for place in range(windows)]
    rows = []
    for place, window in enumerate(names):
        of_window = {"window": window, "window_start": place}
        for feature in features:
            value = float(random.random() * 0.4)
            detail = [0, 40, 30, 20, 10, 50, 40, 30, 20, 10, 50, 3, 0]
            of_feature = {"feature": feature, "measure": "psi", "value": value, "threshold": 0.2, "model_version": 1}
            rows.append(of_window | of_feature | {"breached": value > 0.2, "detail": json.dumps(detail)})
        for version in versions:
            value = 0.95 - 0.002 * place - 0.001 * version
            quality = {"measure": "quality", "value": value, "breached": value < 0.9, "model_version": version}
            rows.append(of_window | quality | {"detail": "accuracy_score", "baseline": 0.96 - 0.001 * version})
    return pd.DataFrame(rows)


def baseline(features):
    cuts = tuple(np.linspace(-1.2345, 12345.678, 9))
    counted = {feature: Counted(NumberBins(cuts, -123.456, 99999.9), [0, *[30] * 10, 0, 0]) for feature in features}
    return Baseline("", counted, "classifier", "accuracy_score", {}, None, None, (0, 0, 0))


def check(percent, p50, p95, problem="", errors=0):
    return HealthCheck(percent, "endpoint" if percent else "blue", 5, errors, p50, p95, "", problem)


QUANTITIES = np.linspace(-1000, 100_000, 200), np.linspace(-1000, 100_000, 200)[::-1]
MANY = np.tile(QUANTITIES[0], 20), np.tile(QUANTITIES[1], 20)
STEPS = [check(0, 12.1, 22.7), check(10, 14.1, 25), check(50, 11.2, 40.2), check(100, 900, 3225, "too slow")]
DRAWN = {
    "loss": lambda: training.loss_curve(losses(20), "log_loss"),
    "loss of one epoch": lambda: training.loss_curve(losses(1, held_out=False), "log_loss"),
    "roc of 2": lambda: training.roc_curve(*classes(2)),
    "roc of 3 long": lambda: training.roc_curve(*long_classes()),
    "roc of 10": lambda: training.roc_curve(*classes(10)),
    "confusion of 2": lambda: training.confusion_matrix(*predicted(2)),
    "confusion of 10": lambda: training.confusion_matrix(*predicted(10)),
    "confusion of 40": lambda: training.confusion_matrix(*predicted(40)),
    "precision of 2": lambda: training.precision_recall_by_threshold(*classes(2)),
    "precision of 3 long": lambda: training.precision_recall_by_threshold(*long_classes()),
    "predicted": lambda: training.predicted_against_actual(*QUANTITIES, LONG[0]),
    "predicted, many": lambda: training.predicted_against_actual(*MANY, "price"),
    "residuals": lambda: training.residuals(*QUANTITIES, LONG[0]),
    "residuals, many": lambda: training.residuals(*MANY, "price"),
    "features": lambda: training.feature_importance(pd.Series(np.arange(30.0), LONG, name="more loss if shuffled")),
    "trials": lambda: training.optimization_history(trials(30), "log_loss"),
    "hyperparameters": lambda: training.hyperparameter_importance({"learning_rate": 0.7, "regularization": 0.3}),
    "heat of 40": lambda: monitoring.heat_map(judged(40, LONG)),
    "heat of 1": lambda: monitoring.heat_map(judged(1, ["size"])),
    "heat of 8": lambda: monitoring.heat_map(judged(8, LONG[:5])),
    "histograms": lambda: monitoring.histograms(judged(3, LONG[:6]), baseline(LONG[:6])),
    "histogram": lambda: monitoring.histograms(judged(3, ["size"]), baseline(["size"])),
    "quality of 40": lambda: monitoring.quality_over_time(judged(40, ["size"], (1, 2, 3))),
    "quality of 1": lambda: monitoring.quality_over_time(judged(1, ["size"])),
    "rollout": lambda: rollout(STEPS),
    "rollout without an answer": lambda: rollout([check(0, math.nan, math.nan, "5 errors", 5)]),
}  # fmt: skip


@pytest.fixture(scope="module")
def drawn():
    """Each figure, laid out, by its name."""
    made = {name: draw() for name, draw in DRAWN.items()}
    for figure in made.values():
        FigureCanvasAgg(figure).draw()
    return made


of_each_plot = pytest.mark.parametrize("name", DRAWN)


def texts(figure):
    """The texts that are seen, in pixels."""
    for text in figure.findobj(mpl.text.Text):
        if text.get_visible() and text.get_text().strip():
            # What an annotation takes up includes its arrow.
            extent = mpl.text.Text.get_window_extent if isinstance(text, Annotation) else type(text).get_window_extent
            yield text, extent(text)


def ticks_out_of_sight(figure):
    """The labels of ticks beyond the ends of their axis, which are not drawn."""
    hidden = set()
    for axes in figure.axes:
        for axis, limits in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
            low, high = sorted(limits)
            for which in ("major", "minor"):
                ticks = axis.get_major_ticks() if which == "major" else axis.get_minor_ticks()
                hidden |= {
                    it for tick in ticks for it in (tick.label1, tick.label2) if not low <= tick.get_loc() <= high
                }
    return hidden


@of_each_plot
def test_no_text_is_over_another(drawn, name):
    hidden = ticks_out_of_sight(drawn[name])
    seen = [(text, extent) for text, extent in texts(drawn[name]) if text not in hidden]
    for (one, a), (other, b) in itertools.combinations(seen, 2):
        if one.get_rotation() == other.get_rotation() == 45:
            # Side by side: as far apart as their letters are high, across the direction of the words.
            apart = abs(a.x1 - b.x1 + a.y1 - b.y1) * math.sin(math.pi / 4)
            assert apart >= 0.9 * one.get_fontsize() / 72 * drawn[name].dpi or not a.overlaps(b), (one, other)
        else:
            assert not a.padded(-1).overlaps(b.padded(-1)), (one, other)


@of_each_plot
def test_letters_are_large_enough_where_a_notebook_shows_700_pixels(drawn, name):
    inches = drawn[name].get_tightbbox().width
    smallest = min(text.get_fontsize() for text, _ in texts(drawn[name]))
    # `output.display` saves 90 dots per inch, and a browser shrinks what is wider than the page.
    assert smallest / 72 * min(90, 700 / inches) >= 11


@of_each_plot
def test_lines_differ_in_color_or_stroke(drawn, name):
    for axes in drawn[name].axes:
        lines = [line for line in axes.lines if line.get_linestyle() in ("-", "--") and len(line.get_xdata()) > 1]
        looks = [(line.get_color(), line.get_linestyle()) for line in lines]
        assert len(looks) == len(set(looks))


# What people without one kind of cone see, of linear RGB: Machado, Oliveira and Fernandes 2009, severity 1.0,
# https://www.inf.ufrgs.br/~oliveira/pubs_files/CVD_Simulation/CVD_Simulation.html
SEEN = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
}


@pytest.mark.parametrize("kind", SEEN)
def test_the_colors_can_be_told_apart_without_one_kind_of_cone(kind):
    linear = [np.power(to_rgb(color), 2.2) for color in figures.COLORS]
    seen = [np.power(np.clip(SEEN[kind] @ color, 0, 1), 1 / 2.2) for color in linear]
    assert min(np.linalg.norm(one - other) for one, other in itertools.combinations(seen, 2)) > 0.15


def test_the_bars_of_a_rollout_stand_beside_each_other(drawn):
    ends = sorted((bar.get_x(), bar.get_x() + bar.get_width()) for bar in drawn["rollout"].axes[0].patches)
    assert len(ends) == 2 * len(STEPS)
    assert all(end < start for (_, end), (start, _) in itertools.pairwise(ends))


def test_features_whose_names_begin_alike_have_a_bar_each(drawn):
    axes = drawn["features"].axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert len(set(names)) == len({bar.get_y() for bar in axes.patches}) == 20


def test_lines_are_named_beside_their_ends(drawn):
    named = {text.get_text(): text.xy for text in drawn["loss"].axes[0].texts}
    ends = {line.get_color(): (line.get_xdata()[-1], line.get_ydata()[-1]) for line in drawn["loss"].axes[0].lines}
    assert list(named) == ["training rows", "held-out rows"] and list(named.values()) == list(ends.values())


def test_a_version_that_scored_in_no_window_that_is_shown_is_left_out():
    rows = judged(60, ["size"], (1, 2))
    rows = rows[(rows["model_version"] == 2) | (rows["measure"] == "psi") | (rows["window_start"] < 5)]
    labels = [text.get_text() for text in monitoring.quality_over_time(rows).axes[0].texts]
    assert labels == ["version 2", "version 2 at the gate"]


def test_categories_are_named_in_full_below_their_bars():
    rows = judged(1, ["city"]).assign(detail="[5, 3, 1, 0]")
    made = Baseline("", {"city": Counted(CategoryBins(("A", "B")), [5, 3, 1, 0])}, "", "", {}, None, None, (0, 0, 0))
    axes = monitoring.histograms(rows, made).axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["A", "B", "others"]


def png(figure):
    content = io.BytesIO()
    figure.savefig(content, format="png", metadata={"Software": None})
    return content.getvalue()


@pytest.mark.parametrize("name", ["loss", "heat of 8", "rollout", "residuals"])
def test_what_a_user_has_set_neither_changes_a_plot_nor_is_changed_by_it(name):
    expected = png(DRAWN[name]())
    own = {
        "font.size": 30, "axes.facecolor": "black", "xtick.color": "red", "ytick.labelsize": 4, "axes.grid": False,
        "xtick.major.size": 20, "figure.facecolor": "green",
    }  # fmt: skip
    with mpl.rc_context(own):
        before = dict(mpl.rcParams)
        assert png(DRAWN[name]()) == expected
        assert dict(mpl.rcParams) == before
