"""What a model's experts do: usage, knock-outs, forced routes, patching, attention and attribution."""
