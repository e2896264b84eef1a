"""Attribution: how much of a model's output is due to each word of its input, and to each expert.

`instance` prepares one input, of which `difference` and `router` make other outputs than its logits; `tokens` and
`experts` attribute an output, `trust` checks what came out, and `importance` measures every expert on a whole data set.
All of it is free of hooks and leaves no gradient behind, so that one loaded model serves several threads.
"""
