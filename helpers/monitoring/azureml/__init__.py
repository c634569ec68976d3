"""Azure ML's own model monitor of an endpoint: a schedule in the workspace, beside what 06_monitor measures itself."""
