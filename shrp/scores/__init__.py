"""What a model scores, with intervals; paired with another; by group; and how far it can be trusted."""
