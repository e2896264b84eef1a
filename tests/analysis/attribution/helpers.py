"""What the attribution tests share."""

from shrp.data.batching import collate, encode
from shrp.data.tasks import TASKS
from shrp.evaluation.evaluate import batch_logits

SST2, MRPC, STSB = TASKS["sst2"], TASKS["mrpc"], TASKS["stsb"]
TEXT = ("w1 w20 w33, w4 w50 w17",)


def direct(model, tokenizer, text=TEXT, **changed):
    """Logits of one text without attribution, with some of the model's inputs changed."""
    batch = collate(tokenizer, encode(tokenizer, [text]), [0]) | changed
    return batch_logits(model, batch)[0]
