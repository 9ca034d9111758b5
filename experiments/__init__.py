"""Binaries: the only place that sees flags, configs and files."""
