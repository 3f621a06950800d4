"""Decides where a workflow could run: predicts, prices, ranks, explains, and checks itself against what happened."""
