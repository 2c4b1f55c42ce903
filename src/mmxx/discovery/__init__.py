"""Discovery: search for formulas and for programs."""
