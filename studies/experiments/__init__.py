"""Seven experiments on the method itself, each one command: `python -m studies.experiments NAME --help`.

`layer`: usage of one converted layer while it trains. `topk`: Top-1, Top-3, Top-5 and how stable what they keep is.
`sweep`: score against FLOPs at every budget. `overhead`: what routing costs. `balance`: the balance loss and collapse.
`matching`: experts that compare two texts, exchanged. `rates`: controls at other learning rates, from other starts.
Each fills a JSON file that the app's Experiments page draws; trainings are kept under a work folder and shared.
"""
