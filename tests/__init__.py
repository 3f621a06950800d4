"""Tests of HEROES."""
