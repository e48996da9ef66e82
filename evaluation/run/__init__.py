"""A run folder: its content, its description, and the merging of several."""
