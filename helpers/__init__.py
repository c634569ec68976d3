"""Everything that the notebooks of this bundle do, apart from explaining it.

Importing this package starts nothing, reaches no network, and imports neither
pyspark nor mlflow: each function imports what it needs when it is called.
"""

import warnings

# MLflow imports tqdm's notebook bars, which need ipywidgets; a job's output needs text bars.
warnings.filterwarnings("ignore", message="IProgress not found")
