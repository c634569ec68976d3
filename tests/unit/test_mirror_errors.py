"""Errors of mirroring are printed in one short line, without secrets."""

from mlflow.exceptions import MlflowException
from requests import HTTPError

from helpers.tracking.mirror.errors import one_line


def test_a_long_message_keeps_its_beginning_and_the_file_at_its_end():
    error = MlflowException(f"The following failures occurred: {'x' * 500}\n##### File model/weights.bin #####\nbroken")
    line = one_line(error)
    assert line.startswith("The following failures occurred: xxx")
    assert line.endswith("x ##### File model/weights.bin ##### broken")
    assert len(line) <= 300


def test_a_signed_url_loses_its_signature():
    url = "https://storage.blob.core.windows.net/azureml/model.pkl"
    error = HTTPError(
        f"403 Client Error: Forbidden for url: {url}?sv=2024-11-04&sp=r&sig=secret%3D Response text: expired"
    )
    assert one_line(error) == f"403 Client Error: Forbidden for url: {url} Response text: expired"
