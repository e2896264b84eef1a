"""What the app's pages are made of: a package a page, with its parts and figures (data in, figure out); and here what
they share: loaders, session state, texts, colours. `expert` is the profile of one expert; `own`, what a person brings
along.
"""
