"""MUSHRA listening tests."""
