"""Planning: agents that look ahead with a model."""
