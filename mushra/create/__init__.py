"""Making a test: excerpts, stimuli, YAML and key."""
