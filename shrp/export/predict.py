"""Print label and probability of texts: arguments, or lines of stdin; a tab between the two texts of a pair."""

import json
import sys
from pathlib import Path

import numpy as np
from onnxruntime import InferenceSession
from tokenizers import Tokenizer

if __name__ == "__main__":
    here = Path(__file__).parent
    config = json.loads((here / "config.json").read_text(encoding="utf-8"))
    tokenizer = Tokenizer.from_file(str(here / "tokenizer.json"))  # truncates by itself
    session = InferenceSession(here / "model.onnx")
    for text in sys.argv[1:] or (line.rstrip("\r\n") for line in sys.stdin):
        read = tokenizer.encode(*text.split("\t", len(config["texts"]) - 1))
        inputs = {name: np.array([getattr(read, field)]) for name, field in config["inputs"].items()}
        logits = session.run(None, inputs)[0][0]
        shares = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        best = logits.argmax()
        print(*((config["labels"][best], f"{shares[best]:.4f}") if config["labels"] else logits), sep="\t")
