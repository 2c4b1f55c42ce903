"""Signals: functions that a network stands for."""
