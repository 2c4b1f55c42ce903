"""Running an experiment: knows no system."""
