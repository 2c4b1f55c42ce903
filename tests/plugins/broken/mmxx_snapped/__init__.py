"""A plug-in whose import fails."""
