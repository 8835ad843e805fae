"""Pictures of what a model has found: heat maps, and scores below frames."""
