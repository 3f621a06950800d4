"""Attempts: one intended execution each, run at most once, settled exactly."""
