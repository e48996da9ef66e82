"""A run folder: what is kept in it, how it is described, and how several are merged."""
