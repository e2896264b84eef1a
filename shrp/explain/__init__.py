"""What experts and heads look at, and which inputs and words are theirs."""
