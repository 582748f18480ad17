"""What to run: tasks, parameters, pipelines, blocks; loading and validating them."""
