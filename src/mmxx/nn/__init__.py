"""Network parts that two or more rooms use."""
