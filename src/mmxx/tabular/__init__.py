"""Tabular: methods for rows and columns."""
