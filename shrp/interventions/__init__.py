"""What would be if: experts taken away or forced, routes exchanged, hidden states of another input put in."""
