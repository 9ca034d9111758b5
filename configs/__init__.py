"""Experiment configs; they import nothing but each other."""
