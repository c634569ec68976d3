"""Create on a laptop what notebooks 01 to 04 and a stream create, with less data.

    python -m tests.scenarios.notebooks.score_and_leave_everything FILE

The experiment also has a run of somebody else, and the schema a table of somebody else.
"""

from __future__ import annotations

import sys

import mlflow
import pandas as pd
from sklearn.linear_model import LogisticRegression

from helpers import parameters, registration, runtime, scoring, tracking
from helpers.data import tables

SCORING, PREDICTIONS = "azureml_mlflow.scoring", "azureml_mlflow.small_predictions"


def main(source: str) -> None:
    """Make tables from a file with the columns id, size and kind; train, register and promote a model; score."""
    p = runtime.read_parameters(parameters.Tracking)
    spark = runtime.spark()
    tables.make_tables(
        spark, training_table="training", scoring_table="scoring", catalog="", schema="azureml_mlflow",
        source_path=source, label_column="kind", id_column="id",
    )  # fmt: skip
    session = tracking.configure(p)
    rows = pd.read_csv(source)
    model = LogisticRegression().fit(rows[["size"]], rows["kind"])
    signature = mlflow.models.infer_signature(rows[["size"]], pd.Series(rows["kind"], name="prediction"))
    with mlflow.start_run(run_name="small", tags={tracking.MODEL_NAME_TAG: "small"}) as run:
        uri = tracking.log_model(model, flavor="sklearn", signature=signature)
    with mlflow.start_run(run_name="somebody's"):
        mlflow.log_param("x", 1)
    version, _ = registration.register(session, mlflow.get_run(run.info.run_id), uri, "small", {})
    tracking.promote(session, "small", version.version)
    spark.sql(f"INSERT INTO {SCORING} VALUES (99, CAST('Infinity' AS DOUBLE))")
    scorer = scoring.Scorer(session, version, SCORING, PREDICTIONS, "id")
    new_rows = scoring.new_rows(spark, SCORING, "", "id")
    scoring.score_new_rows(scorer, new_rows, "")
    spark.range(3).write.saveAsTable("azureml_mlflow.somebodys_own")


if __name__ == "__main__":
    main(sys.argv[1])
