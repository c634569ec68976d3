"""Validation, registered versions and the champion, in a registry on this machine."""

import mlflow
import pytest
from sklearn.dummy import DummyClassifier

from helpers import registration, tracking, training
from helpers.data import source, split
from helpers.parameters import ParameterError
from helpers.registration import validation


@pytest.fixture(scope="module")
def data(spark):
    spark.sql("CREATE SCHEMA IF NOT EXISTS registration_tests")
    # Scoring writes columns called `problem` and `row`. Features may have these names, too.
    rows = source.sample_rows(spark).selectExpr("id", "worst_area AS problem", "mean_texture AS row", "diagnosis")
    rows.write.mode("overwrite").saveAsTable("registration_tests.t")
    return split.load_split(
        spark, "registration_tests.t", label_column="diagnosis", id_column="id", test_fraction=0.3, seed=1
    )


@pytest.fixture
def train(data, session, model_name):
    """Log a run with a model, as 02_train does, and return it."""

    def train_one(flavor="sklearn", **changes):
        settings = {"epochs": 3, "learning_rate": 0.01, "seed": 1} | changes
        with mlflow.start_run(tags={tracking.MODEL_NAME_TAG: model_name}) as run:
            trained = training.fit(data, model_flavor=flavor, **settings)
            tracking.log_model(
                trained.model, flavor=trained.flavor, signature=trained.signature, classes=trained.classes
            )
        return mlflow.get_run(run.info.run_id), trained

    return train_one


@pytest.mark.parametrize("flavor", ["sklearn", "spark"])
def test_a_loaded_model_scores_the_held_out_rows_as_the_trained_one_did(session, data, train, flavor):
    run, trained = train(flavor)
    metrics = registration.evaluate(session, tracking.logged_model_uri(session, run), data)
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
        "outcome": f"of {first}", "run_id": first, "tracking_server": mlflow.get_tracking_uri(), "azureml_mlflow": model_name
    }  # fmt: skip


def test_the_champion_is_what_scoring_gets_until_another_one_is_promoted(session, train, model_name):
    with pytest.raises(ParameterError, match=f"model_name='{model_name}': no registered version of it"):
        tracking.resolve_version(session, model_name, "")
    for _ in range(2):
        run, _ = train(epochs=1)
        registration.register(session, run, tracking.logged_model_uri(session, run), model_name, {})
    with pytest.raises(ParameterError, match="has no champion: none of its 2 versions passed the gate"):
        tracking.resolve_version(session, model_name, "")
    assert tracking.champion(session, model_name) is None
    tracking.promote(session, model_name, "1")
    assert str(tracking.resolve_version(session, model_name, "").version) == "1"
    tracking.promote(session, model_name, "2")
    assert str(tracking.resolve_version(session, model_name, "").version) == "2"
    assert str(tracking.resolve_version(session, model_name, "1").version) == "1"
    with pytest.raises(ParameterError, match="model_version='3': .* has no such version; it has: 1, 2"):
        tracking.resolve_version(session, model_name, "3")


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
    checks = registration.validate({metric: value}, champion_metrics, metric=metric, threshold=0.9)
    assert [(check.name, check.passed) for check in checks] == [
        (name, passed) for name, (passed, _) in outcomes.items()
    ]
    for check in checks:
        assert outcomes[check.name][1] in check.detail


def test_a_check_added_to_the_table_decides_and_becomes_a_tag_of_the_version(
    session, data, train, model_name, monkeypatch
):
    def check_recall(evaluation):
        recall = evaluation.metrics["recall_score"]
        return registration.ValidationCheck("recall", recall >= 2, f"recall_score {recall:.1f}, 2 required")

    monkeypatch.setattr(validation, "CHECKS", [*validation.CHECKS, check_recall])
    metrics = {"accuracy_score": 0.95, "recall_score": 0.9}
    checks = registration.validate(metrics, None, metric="accuracy_score", threshold=0.9)
    assert [(check.name, check.passed) for check in checks] == [("threshold", True), ("recall", False)]
    run, _ = train(epochs=1)
    tags = registration.version_tags(data, metrics, checks)
    registration.register(session, run, tracking.logged_model_uri(session, run), model_name, tags)
    registered = mlflow.MlflowClient().get_model_version(model_name, "1").tags
    assert registered["check_threshold"] == "passed: accuracy_score 0.9500 ≥ 0.9000 (passes by 0.05)"
    assert registered["check_recall"] == "failed: recall_score 0.9, 2 required"
    assert (registered["training_table"], registered["metric_recall_score"]) == (data.table, "0.9")


def test_a_metric_that_could_not_be_computed_fails_the_check_by_name():
    checks = registration.validate({"accuracy_score": 1.0}, {}, metric="roc_auc", threshold=0.5)
    assert [(check.passed, check.detail) for check in checks] == [
        (False, "roc_auc could not be computed for the model"),
        (False, "roc_auc could not be computed for the model and the champion"),
    ]


@pytest.fixture
def misfit(register_estimator):
    """Version 1 of a model whose signature has a column that the rows lack."""
    signature = mlflow.models.ModelSignature.from_dict(
        {"inputs": '[{"name": "gone", "type": "double"}]', "outputs": '[{"name": "prediction", "type": "string"}]'}
    )
    return register_estimator(DummyClassifier().fit([[0.0], [1.0]], ["a", "b"]), signature)


def test_a_champion_that_cannot_score_these_rows_is_named_with_the_reason(session, data, model_name, misfit):
    assert registration.evaluate_champion(session, model_name, data) == (None, "There is no champion yet.")
    tracking.promote(session, model_name, "1")
    metrics, note = registration.evaluate_champion(session, model_name, data)
    assert metrics == {} and "version 1, cannot score these rows" in note and "'gone' is missing" in note


def test_a_model_that_does_not_fit_the_held_out_rows_is_refused(session, data, misfit):
    with pytest.raises(
        ParameterError, match=r"training_table='registration_tests.t': does not fit .* 'gone' is missing"
    ):
        registration.evaluate(session, f"models:/{misfit.name}/{misfit.version}", data)


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
