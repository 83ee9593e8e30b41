"""Passes of ours in phase lower, between TVM's."""
