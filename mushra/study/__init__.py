"""Planning a test, and comparing its grades with metrics."""
