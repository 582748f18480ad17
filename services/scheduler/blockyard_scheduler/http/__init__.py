"""What the scheduler answers over HTTP: health, metrics, the run as JSON, the page."""
