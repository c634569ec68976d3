"""Kill this process and its JVM after the measures of two windows are written.

python -m tests.scenarios.spark.die_while_monitoring PARAMETERS MODEL
"""

from __future__ import annotations

import json
import os
import signal
import sys

from helpers import monitoring, parameters, runtime
from helpers.monitoring import table


def main() -> None:
    """Monitor a model."""
    settings, model_name = sys.argv[1:]
    spark = runtime.spark()
    jvm = spark.sparkContext._gateway.proc.pid
    write, written = table.write, []

    def write_and_die(*arguments: object) -> None:
        write(*arguments)
        written.append(arguments)
        if len(written) == 2:
            os.kill(jvm, signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)

    table.write = write_and_die
    monitoring.monitor(spark, parameters.parse(parameters.Monitor, json.loads(settings)), model_name)


if __name__ == "__main__":
    main()
