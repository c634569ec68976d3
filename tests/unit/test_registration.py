"""Validation, registered versions and the champion, in a registry on this machine."""

import dataclasses

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.models import infer_signature
from scipy.stats import norm
from sklearn.compose import TransformedTargetRegressor
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import mean_absolute_error, r2_score
from sklearn.tree import DecisionTreeClassifier

from helpers import parameters, registration, tracking, training
from helpers.data import EvaluationRows, evaluation_rows, load_split, source
from helpers.parameters import ParameterError
from helpers.registration import validation

CONSTANT = DummyClassifier().fit([[0.0], [1.0]], ["a", "b"])
SIGNATURE = infer_signature(pd.DataFrame({"x": [0.0]}), pd.Series(["a"], name="prediction"))
# What `registration.evaluate_baseline` measures for two classes.
BASELINE = {"balanced_accuracy_score": 0.5}
SETTINGS = {"metric": "accuracy_score", "threshold": 0.9, "margin": 0.1}


@pytest.fixture(scope="module")
def data(spark):
    spark.sql("CREATE SCHEMA IF NOT EXISTS registration_tests")
    # Scoring writes columns called `problem` and `row`. Features may have these names, too.
    rows = source.sample_rows(spark, "breast_cancer").selectExpr(
        "id", "worst_area AS problem", "mean_texture AS row", "outcome"
    )
    rows.write.mode("overwrite").saveAsTable("registration_tests.t")
    return load_split(spark, "registration_tests.t", label_column="outcome", id_column="id", test_fraction=0.3, seed=1)


@pytest.fixture(scope="module")
def rows(data):
    return EvaluationRows.held_out_of(data)


@pytest.fixture
def train(data, session, model_name):
    """Log a run with a model, as 02_train does, and return it."""

    def train_one(flavor="sklearn", **changes):
        settings = parameters.parse(parameters.Fit, {"model_flavor": flavor, "epochs": 3, "seed": 1} | changes)
        with mlflow.start_run(tags={tracking.MODEL_NAME_TAG: model_name}) as run:
            trained = training.fit(data, settings)
            tracking.log_model(
                trained.model, flavor=trained.flavor, signature=trained.signature, classes=trained.classes
            )
        return mlflow.get_run(run.info.run_id), trained

    return train_one


@pytest.mark.slow
@pytest.mark.parametrize("flavor", ["sklearn", "xgboost", "spark"])
def test_a_loaded_model_scores_the_held_out_rows_as_the_trained_one_did(session, rows, train, flavor):
    run, trained = train(flavor)
    metrics = registration.evaluate(session, tracking.logged_model_uri(session, run), rows)
    assert {f"val_{name}": pytest.approx(value) for name, value in metrics.items()} == trained.metrics


def test_a_new_name_makes_version_1_and_the_same_name_the_next_but_a_run_is_registered_once(session, train, model_name):
    registered = []
    runs = [train()[0], train()[0]]
    for run in (*runs, runs[0]):
        version, is_new = registration.register(
            session, run, tracking.logged_model_uri(session, run), model_name, {"outcome": f"of {run.info.run_id}"}
        )
        registered.append((str(version.version), version.run_id, is_new))
    first, second = (run.info.run_id for run in runs)
    assert registered == [("1", first, True), ("2", second, True), ("1", first, False)]
    tags = mlflow.MlflowClient().get_model_version(model_name, "1").tags
    assert tags == {
        "outcome": f"of {first}", "run_id": first, "model_uri": tracking.logged_model_uri(session, runs[0]),
        "tracking_server": mlflow.get_tracking_uri(), "azureml_mlflow": model_name,
    }  # fmt: skip


def test_each_model_of_a_run_is_registered_once(session, model_name):
    with mlflow.start_run() as run:
        uris = {name: tracking.log_model(CONSTANT, flavor="sklearn", signature=SIGNATURE, name=name) for name in "ab"}
    run = mlflow.get_run(run.info.run_id)
    registered = [registration.register(session, run, uris[name], model_name, {}) for name in ("a", "b", "a")]
    assert [(str(version.version), is_new) for version, is_new in registered] == [
        ("1", True),
        ("2", True),
        ("1", False),
    ]
    tags = {str(version.version): version.tags["model_uri"] for version in tracking.versions(session, model_name)}
    assert tags == {"1": uris["a"], "2": uris["b"]}


def test_the_champion_is_what_scoring_gets_until_another_one_is_promoted(session, train, model_name):
    with pytest.raises(ParameterError, match=f"model_name='{model_name}': no registered version of it"):
        tracking.resolve_version(session, model_name, "")
    for _ in range(2):
        run, _ = train(epochs=1)
        registration.register(session, run, tracking.logged_model_uri(session, run), model_name, {})
    with pytest.raises(ParameterError, match="model_version='': .* has no champion"):
        tracking.resolve_version(session, model_name, "")
    assert tracking.champion(session, model_name) is None
    tracking.promote(session, model_name, "1")
    assert str(tracking.resolve_version(session, model_name, "").version) == "1"
    tracking.promote(session, model_name, "2")
    assert str(tracking.resolve_version(session, model_name, "").version) == "2"
    assert str(tracking.resolve_version(session, model_name, "1").version) == "1"
    with pytest.raises(ParameterError, match="model_version='3': .* has no such version; it has: 1, 2"):
        tracking.resolve_version(session, model_name, "3")


@pytest.fixture
def register_tagged(session, model_name):
    """Register a constant model with the given tags."""

    def register(**tags):
        with mlflow.start_run() as run:
            uri = tracking.log_model(CONSTANT, flavor="sklearn", signature=SIGNATURE)
        return registration.register(session, mlflow.get_run(run.info.run_id), uri, model_name, tags)[0]

    return register


def test_without_a_champion_each_version_is_described_as_what_it_is(session, model_name, register_tagged):
    register_tagged(check_threshold="failed: accuracy_score 0.1", check_baseline="passed: balanced_accuracy_score 0.9")
    register_tagged()
    register_tagged(check_threshold="passed: accuracy_score 0.99", check_baseline="passed: balanced_accuracy_score 0.9")
    with pytest.raises(ParameterError) as refused:
        tracking.resolve_version(session, model_name, "")
    assert (
        "Version 3 passed the gate, and waits for approval (08_approve), or its promotion was undone or did not happen."
        in str(refused.value)
    )
    assert "Version 2 never went through the gate of 03_register." in str(refused.value)
    assert "Version 1 did not pass the gate: check 'threshold' failed: accuracy_score 0.1." in str(refused.value)
    assert "validation_threshold" not in str(refused.value)


PASSED = {"check_threshold": "passed: accuracy_score 0.99", "metric_accuracy_score": "0.99"}


def roles(session, model_name):
    """Return the numbers of the champion and the challenger."""
    holders = (tracking.champion(session, model_name), tracking.challenger(session, model_name))
    return tuple(str(holder.version) if holder else None for holder in holders)


@pytest.fixture
def challenger(session, model_name, register_tagged):
    """A champion, version 1, and a challenger, version 2."""
    registration.take_place(session, register_tagged(**PASSED), "", "auto")
    second = register_tagged(**PASSED, judged_on="some rows")
    standing = registration.take_place(session, second, "", "challenger")
    assert not standing.is_champion and standing.is_challenger and "waits for approval" in standing.not_promoted_because
    assert roles(session, model_name) == ("1", "2")
    return second


def decide(session, model_name, decision, version="", **who):
    return registration.decide(session, registration.waiting_version(session, model_name, version), decision, **who)


def test_a_challenger_becomes_champion_when_it_is_approved_and_its_tags_say_by_whom_and_why(
    session, model_name, challenger
):
    table = registration.comparison(session, challenger)
    assert list(table) == ["version 2", "champion, version 1"]
    assert table.loc["judged_on"].tolist() == ["some rows", ""] and set(table.loc["metric_accuracy_score"]) == {"0.99"}
    said = decide(session, model_name, "approve", approved_by="Ada", reason="better where it matters")
    assert said.startswith(f"{model_name} version 2 was approved by Ada at 20") and "it is the champion" in said
    assert roles(session, model_name) == ("2", None)
    tags = tracking.champion(session, model_name).tags
    assert (tags["approval"], tags["approved_by"], tags["approval_reason"]) == (
        "approved",
        "Ada",
        "better where it matters",
    )
    assert tags["approval_time"].startswith("20") and not [key for key in tags if "." in key]
    # Again, by number: nothing changes. Registered again, it stays the champion.
    assert decide(session, model_name, "approve", "2", approved_by="Bob") == said
    champion = tracking.champion(session, model_name)
    assert registration.take_place(session, champion, "", "challenger") == registration.Standing(True, False, "")
    with pytest.raises(
        ParameterError, match="no challenger .* waits .*The last decision: version 2 was approved by Ada"
    ):
        decide(session, model_name, "approve")
    # Back to the earlier one.
    assert "it is the champion" in decide(session, model_name, "approve", "1")
    assert roles(session, model_name) == ("1", None)
    assert tracking.champion(session, model_name).tags["approved_by"]


@pytest.mark.parametrize("promote", ["auto", "challenger"])
def test_a_refused_version_is_never_promoted_again_but_the_next_one_is(
    session, model_name, challenger, register_tagged, promote
):
    decide(session, model_name, "refuse", approved_by="Ada", reason="uses postcodes")
    assert roles(session, model_name) == ("1", None)
    refused = session.client().get_model_version(model_name, "2")
    standing = registration.take_place(session, refused, "", promote)
    assert not standing.is_champion and not standing.is_challenger
    assert (
        "it was refused by Ada at 20" in standing.not_promoted_because
        and "uses postcodes" in standing.not_promoted_because
    )
    with pytest.raises(
        ParameterError, match="model_version='2': .* was refused by Ada .*uses postcodes. Train and register"
    ):
        decide(session, model_name, "approve", "2")
    assert "was refused by Ada" in decide(session, model_name, "refuse", "2", approved_by="Bob")
    registration.take_place(session, register_tagged(**PASSED), "", promote)
    assert roles(session, model_name) == (("3", None) if promote == "auto" else ("1", "3"))


def test_a_challenger_that_fails_the_gate_when_it_is_judged_again_waits_no_longer(session, model_name, challenger):
    standing = registration.take_place(session, challenger, "check 'threshold' failed: 0.8", "challenger")
    assert standing == registration.Standing(False, False, "check 'threshold' failed: 0.8")
    assert roles(session, model_name) == ("1", None)


def test_a_version_that_may_not_be_decided_about_is_refused_with_the_reason(
    session, model_name, challenger, register_tagged
):
    register_tagged(check_threshold="failed: accuracy_score 0.1")
    register_tagged()
    for version, decision, problem in [
        ("1", "approve", "is the champion already"),
        ("1", "refuse", "is the champion already; promote another version"),
        ("3", "approve", "did not pass the gate: check 'threshold' failed: accuracy_score 0.1"),
        ("4", "approve", "never went through the gate"),
        ("5", "approve", "has no such version"),
    ]:
        with pytest.raises(ParameterError, match=f"model_version='{version}'.*{problem}"):
            decide(session, model_name, decision, version)
    assert roles(session, model_name) == ("1", "2")


def test_waiting_ends_when_somebody_has_written_the_tag_such_as_unity_catalogs_button(session, model_name, challenger):
    with pytest.raises(
        ParameterError, match="decision='wait': nobody has decided about .* version 2 yet: its tag approval"
    ):
        decide(session, model_name, "wait", "2")
    session.client().set_model_version_tag(model_name, "2", "approval", "Approved")
    assert decide(session, model_name, "wait", "2") == f"{model_name} version 2 was approved; it is the champion"
    assert roles(session, model_name) == ("2", None)


@pytest.mark.parametrize("decision", ["approve", "refuse"])
def test_a_decision_that_is_killed_at_any_moment_is_finished_by_the_next_run(
    session, model_name, challenger, monkeypatch, decision
):
    writes = [
        "set_model_version_tag",
        "delete_model_version_tag",
        "set_registered_model_alias",
        "delete_registered_model_alias",
    ]
    originals = {name: getattr(mlflow.MlflowClient, name) for name in writes}
    left = [0]

    def killed_after(original):
        def write(*arguments, **named):
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            return original(*arguments, **named)

        return write

    expected = {"approve": ("2", None), "refuse": ("1", None)}[decision]
    client = session.client()
    for moment in range(10):
        for name, original in originals.items():
            monkeypatch.setattr(mlflow.MlflowClient, name, killed_after(original))
        left[0] = moment
        try:
            decide(session, model_name, decision, approved_by="Ada", reason="r")
            break
        except KeyboardInterrupt:
            monkeypatch.undo()
        assert roles(session, model_name)[1] == "2" and roles(session, model_name)[0] in ("1", "2")
        decide(session, model_name, decision, approved_by="Ada", reason="r")
        assert roles(session, model_name) == expected
        tags = client.get_model_version(model_name, "2").tags
        assert (tags["approved_by"], tags["approval_reason"]) == ("Ada", "r")
        for key in [key for key in tags if key.startswith("approv")]:
            client.delete_model_version_tag(model_name, "2", key)
        tracking.promote(session, model_name, "1")
        tracking.make_challenger(session, model_name, "2")
    assert moment == {"approve": 6, "refuse": 5}[decision] and roles(session, model_name) == expected


def test_a_champion_that_was_deleted_is_not_said_to_have_failed(session, model_name, register_tagged):
    _, second = (register_tagged(check_threshold="passed: accuracy_score 0.99") for _ in range(2))
    register_tagged(check_threshold="passed: accuracy_score 0.99", check_champion="failed: accuracy_score 0.98")
    tracking.promote(session, model_name, second.version)
    session.client().delete_model_version(model_name, second.version)
    assert tracking.champion(session, model_name) is None
    with pytest.raises(
        ParameterError, match="Version 3 did not pass .*'champion'.* Version 2 was deleted. Version 1 pas"
    ):
        tracking.resolve_version(session, model_name, "")
    for number in ("1", "3"):
        session.client().delete_model_version(model_name, number)
    with pytest.raises(ParameterError, match=f"model_name='{model_name}': has no version in .* all were deleted"):
        tracking.resolve_version(session, model_name, "")


@pytest.mark.parametrize(
    ("metric", "value", "champion", "outcomes"),
    [
        ("accuracy_score", 0.95, None, {"threshold": (True, "0.9500 ≥ 0.9000 (passes by 0.05)")}),
        ("accuracy_score", 0.85, None, {"threshold": (False, "0.8500 < 0.9000 (fails by 0.05)")}),
        ("accuracy_score", 0.95, 0.95, {"threshold": (True, ""), "champion": (True, "0.9500 ≥ 0.9500 (passes by 0)")}),
        ("accuracy_score", 0.95, 0.97, {"threshold": (True, ""), "champion": (False, "fails by 0.02")}),
        ("log_loss", 0.95, None, {"threshold": (False, "0.9500 > 0.9000 (fails by 0.05)")}),
        ("log_loss", 0.2, 0.1, {"threshold": (True, "≤"), "champion": (False, "0.2000 > 0.1000 (fails by 0.1)")}),
    ],
)
def test_each_check_says_by_how_much_the_model_passes_or_fails(metric, value, champion, outcomes):
    champion_metrics = None if champion is None else {metric: champion}
    metrics = {"balanced_accuracy_score": 0.8, metric: value}
    checks = registration.validate(
        registration.Evaluation(metrics, champion_metrics, BASELINE, **SETTINGS | {"metric": metric})
    )
    outcomes = outcomes | {"baseline": (True, "0.8000 ≥ 0.5500 (passes by 0.25); a constant prediction has 0.5000")}
    assert [(check.name, check.passed) for check in checks] == [
        (name, passed) for name, (passed, _) in outcomes.items()
    ]
    for check in checks:
        assert outcomes[check.name][1] in check.detail


@pytest.mark.parametrize(
    ("classes", "value", "margin", "passed"),
    [
        (2, 0.5499, 0.1, False),
        (2, 0.5501, 0.1, True),
        (2, 0.5, 0.0, True),
        (2, 0.4999, 0.0, False),
        (4, 0.32, 0.1, False),
        (4, 0.33, 0.1, True),
    ],
)
def test_the_margin_is_a_share_of_the_way_from_a_constant_prediction_to_a_perfect_model(classes, value, margin, passed):
    metrics = {"accuracy_score": 1.0, "balanced_accuracy_score": value}
    baseline = {"balanced_accuracy_score": 1 / classes}
    *_, check = registration.validate(registration.Evaluation(metrics, None, baseline, **SETTINGS | {"margin": margin}))
    assert (check.name, check.passed) == ("baseline", passed)


def test_a_check_added_to_the_table_decides_and_becomes_a_tag_of_the_version(
    session, rows, train, model_name, monkeypatch
):
    def check_recall(evaluation):
        recall = evaluation.metrics["recall_score"]
        return registration.ValidationCheck("recall", recall >= 2, f"recall_score {recall:.1f}, 2 required")

    monkeypatch.setattr(validation, "CHECKS", [*validation.CHECKS, check_recall])
    metrics = {"accuracy_score": 0.95, "recall_score": 0.9, "balanced_accuracy_score": 0.9}
    checks = registration.validate(registration.Evaluation(metrics, None, BASELINE, **SETTINGS))
    outcomes = [(check.name, check.passed) for check in checks]
    assert outcomes == [("threshold", True), ("baseline", True), ("recall", False)]
    assert registration.failures(checks) == "check 'recall' failed: recall_score 0.9, 2 required"
    run, _ = train(epochs=1)
    tags = registration.version_tags(rows, metrics, checks)
    registration.register(session, run, tracking.logged_model_uri(session, run), model_name, tags)
    registered = mlflow.MlflowClient().get_model_version(model_name, "1").tags
    assert registered["check_threshold"] == "passed: accuracy_score 0.9500 ≥ 0.9000 (passes by 0.05)"
    assert registered["check_recall"] == "failed: recall_score 0.9, 2 required"
    assert (registered["training_table"], registered["metric_recall_score"]) == (rows.table, "0.9")
    assert registered["judged_on"] == f"held-out rows of {rows.table} (log_split)"
    assert registered["held_out_rows"] == str(rows.count)


def test_a_version_that_is_judged_again_on_other_rows_has_the_tags_of_the_last_time_only(
    spark, session, rows, train, model_name, request
):
    run, _ = train(epochs=1)
    uri = tracking.logged_model_uri(session, run)
    metrics = {"accuracy_score": 0.95, "balanced_accuracy_score": 0.9, "roc_auc": 0.9}
    checks = registration.validate(registration.Evaluation(metrics, metrics, BASELINE, **SETTINGS))
    registration.register(session, run, uri, model_name, registration.version_tags(rows, metrics, checks))
    # A temporary view is listed in every schema, those of other tests among them.
    request.addfinalizer(lambda: spark.catalog.dropTempView("judges"))
    spark.sql(f"CREATE TEMPORARY VIEW judges AS SELECT * FROM {rows.table} LIMIT 200")
    others = EvaluationRows.all_of(spark, "judges", "outcome", "id")
    del metrics["roc_auc"]
    checks = registration.validate(registration.Evaluation(metrics, None, BASELINE, **SETTINGS))
    version, is_new = registration.register(
        session, run, uri, model_name, registration.version_tags(others, metrics, checks)
    )
    assert not is_new
    tags = mlflow.MlflowClient().get_model_version(model_name, version.version).tags
    assert (tags["judged_on"], tags["held_out_rows"]) == ("all rows of judges (evaluation_table)", "200")
    assert tags["evaluation_table"] == "judges"
    assert not tags.keys() & {"training_table", "check_champion", "metric_roc_auc"}
    assert tags.keys() > {"check_threshold", "check_baseline", "run_id", "model_uri", "azureml_mlflow"}


@pytest.mark.parametrize(
    ("r2", "champion", "outcomes"),
    [
        (0.4, None, {"baseline": True}),
        (0.05, None, {"baseline": False}),
        (0.4, 8.0, {"champion": True, "baseline": True}),
        (0.4, 6.0, {"champion": False, "baseline": True}),
    ],
)
def test_a_regressor_is_compared_with_the_mean_of_the_label_and_a_lower_error_is_better(r2, champion, outcomes):
    error = "root_mean_squared_error"
    champion_metrics = None if champion is None else {error: champion}
    # An error is in the label's unit, so it has no threshold unless one is given.
    evaluation = registration.Evaluation(
        {error: 7.0, "r2_score": r2}, champion_metrics, {"r2_score": 0.0}, metric=error, threshold=None, margin=0.1
    )
    assert {check.name: check.passed for check in registration.validate(evaluation)} == outcomes
    given = dataclasses.replace(evaluation, threshold=6.5)
    assert registration.validate(given)[0].detail.startswith(f"{error} 7.0000 > 6.5000")


def test_the_metric_of_the_gate_fits_the_type_of_the_model():
    assert registration.gate_metric("auto", "classifier") == "accuracy_score"
    assert registration.gate_metric("auto", "regressor") == "r2_score"
    assert registration.gate_metric("max_error", "regressor") == "max_error"
    with pytest.raises(ParameterError, match="validation_metric='roc_auc': does not measure a regressor; .* r2_score"):
        registration.gate_metric("roc_auc", "regressor")


def test_a_metric_that_could_not_be_computed_fails_the_check_by_name():
    metrics = {"accuracy_score": 1.0, "balanced_accuracy_score": 1.0}
    checks = registration.validate(
        registration.Evaluation(metrics, {}, BASELINE, metric="roc_auc", threshold=0.5, margin=0.1)
    )
    assert [(check.passed, check.detail) for check in checks[:2]] == [
        (False, "roc_auc could not be computed for the model"),
        (False, "roc_auc could not be computed for the model and the champion"),
    ]


@pytest.fixture
def judge(spark, schema, session):
    """Fit an estimator to the rows that a split leaves for training, and judge it on the others.

    With `judges`, these rows judge it as an evaluation table.
    """

    def judge_estimator(estimator, rows, judges=None, **settings):
        table = f"{schema}.rows"
        spark.createDataFrame(rows).write.saveAsTable(table)
        split = load_split(spark, table, label_column="y", id_column="id", test_fraction=0.3, seed=1)
        train = split.train.toPandas() if judges is None else rows
        evaluation_table = ""
        if judges is not None:
            evaluation_table = f"{schema}.judges"
            spark.createDataFrame(judges).write.saveAsTable(evaluation_table)
        features = train[split.features]
        model = estimator.fit(features, train["y"])
        signature = infer_signature(features, pd.Series(model.predict(features), name="prediction"))
        with mlflow.start_run() as run:
            if judges is None:
                tracking.log_split(split)
            uri = tracking.log_model(model, flavor="sklearn", signature=signature)
        run = mlflow.get_run(run.info.run_id)
        judging = evaluation_rows(spark, run, evaluation_table=evaluation_table, label_column="y", id_column="id")
        metrics = registration.evaluate(session, uri, judging)
        baseline = registration.evaluate_baseline(judging)
        checks = registration.validate(registration.Evaluation(metrics, None, baseline, **SETTINGS | settings))
        return metrics, baseline, {check.name: check for check in checks}

    return judge_estimator


def test_a_regression_has_scikit_learns_numbers_in_the_gate(judge):
    generator = np.random.default_rng(3)
    rows = pd.DataFrame(generator.normal(size=(400, 2)), columns=list("ab"))
    rows = rows.assign(id=range(400), y=3 * rows["a"] + generator.normal(size=400))
    judges = rows[300:]
    metrics, baseline, checks = judge(LinearRegression(), rows[:300], judges, metric="r2_score", threshold=None)
    expected = LinearRegression().fit(rows[:300][["a", "b"]], rows[:300]["y"]).predict(judges[["a", "b"]])
    assert metrics["r2_score"] == pytest.approx(r2_score(judges["y"], expected))
    assert metrics["mean_absolute_error"] == pytest.approx(mean_absolute_error(judges["y"], expected))
    assert baseline["r2_score"] == pytest.approx(0)
    assert {name: check.passed for name, check in checks.items()} == {"baseline": True}


@pytest.mark.slow
def test_a_decision_tree_that_knows_random_labels_by_heart_is_judged_as_what_it_is(judge):
    generator = np.random.default_rng(3)
    rows = pd.DataFrame(generator.normal(size=(3000, 3)), columns=list("abc"))
    rows = rows.assign(id=range(3000), y=generator.choice(["heads", "tails"], 3000))
    metrics, _, checks = judge(DecisionTreeClassifier(random_state=1), rows)
    assert metrics["accuracy_score"] == pytest.approx(0.5, abs=0.05)
    assert [name for name, check in checks.items() if not check.passed] == ["threshold", "baseline"]


@pytest.mark.slow
def test_a_model_that_finds_5_of_200_positives_among_20_000_rows_is_stopped_by_the_baseline_only(judge):
    # All but 5 positives look like negatives.
    x = np.concatenate([np.ones(5), np.zeros(195), np.zeros(19_800)])
    rows = pd.DataFrame({"id": range(20_000), "x": x, "y": [1] * 200 + [0] * 19_800})
    metrics, baseline, checks = judge(DecisionTreeClassifier(), rows, rows.assign(id=rows["id"] + 20_000))
    assert metrics["accuracy_score"] == pytest.approx(0.99, abs=0.001)
    assert baseline["accuracy_score"] == 0.99 and baseline["roc_auc"] == 0.5
    assert {name: check.passed for name, check in checks.items()} == {"threshold": True, "baseline": False}
    assert checks["baseline"].detail == (
        "balanced_accuracy_score 0.5125 < 0.5500 (fails by 0.0375); a constant prediction has 0.5000"
    )


def test_an_honest_weak_model_passes(judge):
    # Two normal distributions so far apart have an area under the ROC curve of 0.75.
    distance = np.sqrt(2) * norm.ppf(0.75)
    y = np.arange(3000) % 2
    x = np.random.default_rng(1).normal(size=3000) + distance * y
    rows = pd.DataFrame({"id": range(3000), "x": x, "y": y})
    metrics, _, checks = judge(LogisticRegression(), rows, metric="roc_auc", threshold=0.7)
    assert metrics["roc_auc"] == pytest.approx(0.75, abs=0.03)
    assert all(check.passed for check in checks.values())


@pytest.fixture
def numbers(spark, schema):
    """Rows whose label is one of two numbers."""
    rows = pd.DataFrame({"id": range(8), "x": np.arange(8.0), "y": [0, 1] * 4})
    spark.createDataFrame(rows).write.saveAsTable(f"{schema}.numbers")
    return EvaluationRows.all_of(spark, f"{schema}.numbers", "y", "id")


@pytest.fixture
def logarithm(register_estimator):
    """Version 1 of a model that returns NaN for the first rows, where its line is negative and has no logarithm."""
    x = pd.DataFrame({"x": np.arange(8.0)})
    regressor = TransformedTargetRegressor(LinearRegression(), func=np.exp, inverse_func=np.log, check_inverse=False)
    fitted = regressor.fit(x, np.arange(8.0))
    return register_estimator(fitted, infer_signature(x, pd.Series([0.0], name="prediction")))


@pytest.mark.slow
def test_a_model_that_cannot_score_a_row_is_refused_and_a_champion_is_named_with_the_reason(
    session, numbers, model_name, logarithm
):
    uri = f"models:/{model_name}/{logarithm.version}"
    with pytest.raises(ParameterError, match="model_uri='models:/.*cannot score [1-4] of the 8 rows.*id=0: .*NaN"):
        registration.evaluate(session, uri, numbers)
    tracking.promote(session, model_name, logarithm.version)
    metrics, note = registration.evaluate_champion(session, model_name, numbers)
    assert metrics == {} and "cannot score" in note and "NaN or infinite" in note


@pytest.mark.slow
def test_predictions_that_are_not_classes_are_refused_with_the_reason(session, numbers, model_name, register_estimator):
    x = pd.DataFrame({"x": np.arange(8.0)})
    version = register_estimator(
        DummyRegressor(strategy="constant", constant=0.25).fit(x, x["x"]),
        infer_signature(x, pd.Series([0.25], name="p")),
    )
    with pytest.raises(ParameterError, match="predictions cannot be compared with the column 'y' of .*numbers: "):
        registration.evaluate(session, f"models:/{model_name}/{version.version}", numbers)


@pytest.fixture
def misfit(register_estimator):
    """Version 1 of a model whose signature has a column that the rows lack."""
    signature = mlflow.models.ModelSignature.from_dict(
        {"inputs": '[{"name": "gone", "type": "double"}]', "outputs": '[{"name": "prediction", "type": "string"}]'}
    )
    return register_estimator(DummyClassifier().fit([[0.0], [1.0]], ["a", "b"]), signature)


def test_a_champion_that_cannot_score_these_rows_is_named_with_the_reason(session, rows, model_name, misfit):
    assert registration.evaluate_champion(session, model_name, rows) == (None, "There is no champion yet.")
    tracking.promote(session, model_name, "1")
    metrics, note = registration.evaluate_champion(session, model_name, rows)
    assert metrics == {} and "version 1, cannot score these rows" in note and "'gone' is missing" in note
    good = {"accuracy_score": 0.95, "balanced_accuracy_score": 0.9}
    checks = registration.validate(registration.Evaluation(good, metrics, BASELINE, **SETTINGS))
    assert (
        registration.failures(checks)
        == "check 'champion' failed: accuracy_score could not be computed for the champion"
    )


def test_a_model_that_does_not_fit_the_held_out_rows_is_refused(session, rows, misfit):
    with pytest.raises(
        ParameterError, match=r"training_table='registration_tests.t': does not fit .* 'gone' is missing"
    ):
        registration.evaluate(session, f"models:/{misfit.name}/{misfit.version}", rows)


def test_the_newest_finished_run_of_a_model_is_found_and_a_missing_one_is_named(train, model_name, session):
    with pytest.raises(ParameterError, match="no finished run of it in experiment"):
        tracking.find_run(session, "", model_name)
    newest = [train(epochs=1)[0] for _ in range(2)][1]
    with mlflow.start_run(tags={tracking.MODEL_NAME_TAG: "another"}) as other:
        pass
    run = tracking.find_run(session, "", model_name)
    assert run.info.run_id == newest.info.run_id
    assert tracking.logged_model_uri(session, run) == tracking.logged_model_uri(session, newest)
    assert tracking.find_run(session, other.info.run_id, model_name).info.run_id == other.info.run_id
    with pytest.raises(ParameterError, match="run_id='0123': no such run"):
        tracking.find_run(session, "0123", model_name)
    with pytest.raises(ParameterError, match="this run has logged no model"):
        tracking.logged_model_uri(session, mlflow.get_run(other.info.run_id))


def test_a_run_that_is_not_finished_or_was_deleted_is_described_as_that(session, model_name):
    client = session.client()
    run_id = client.create_run(session.experiment_id).info.run_id
    with pytest.raises(ParameterError, match="this run is RUNNING, not FINISHED. Wait until it has ended"):
        tracking.find_run(session, run_id, model_name)
    client.set_terminated(run_id, "FAILED")
    with pytest.raises(ParameterError, match="this run is FAILED, not FINISHED. It ended with an error or was stopped"):
        tracking.find_run(session, run_id, model_name)
    client.set_terminated(run_id, "FINISHED")
    assert tracking.find_run(session, run_id, model_name).info.run_id == run_id
    client.delete_run(run_id)
    with pytest.raises(ParameterError, match="this run was deleted on sqlite:.*restore_run"):
        tracking.find_run(session, run_id, model_name)


def test_a_models_uri_leads_to_its_run(session, model_name):
    with mlflow.start_run() as run:
        uri = tracking.log_model(CONSTANT, flavor="sklearn", signature=SIGNATURE)
    for model_uri in (uri, f"runs:/{run.info.run_id}/model"):
        assert tracking.find_run(session, "", model_name, model_uri).info.run_id == run.info.run_id
    with pytest.raises(ParameterError, match="model_uri='models:/m-0123': no such model"):
        tracking.find_run(session, "", model_name, "models:/m-0123")
    with pytest.raises(ParameterError, match="does not name a model of a run; accepted is"):
        tracking.find_run(session, "", model_name, f"models:/{model_name}/1")
