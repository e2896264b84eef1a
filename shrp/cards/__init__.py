"""Model cards, in sentences made from what a checkpoint says of itself."""
