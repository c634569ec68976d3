"""Score rows on Spark with a registered model, in batches and streams."""

from helpers.scoring.batch import ScoredBatch, Scorer
from helpers.scoring.output_tables import default_prediction_table, quarantine_table, shadow_table
from helpers.scoring.predictor import load
from helpers.scoring.rows import new_rows, rows_to_score
from helpers.scoring.shadow import Shadow, check_shadow, score_shadow
from helpers.scoring.stream import score_new_rows

__all__ = [
    "ScoredBatch",
    "Scorer",
    "Shadow",
    "check_shadow",
    "default_prediction_table",
    "load",
    "new_rows",
    "quarantine_table",
    "rows_to_score",
    "score_new_rows",
    "score_shadow",
    "shadow_table",
]
