"""Compiled loops that two or more systems use."""
