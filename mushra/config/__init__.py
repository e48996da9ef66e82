"""A test's YAML: read as webMUSHRA reads it, checked, written."""
