"""Run the jobs of ``databricks.yml`` on this machine: ``python -m helpers.jobs``."""
