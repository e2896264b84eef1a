"""What the app's pages share: loaders, session state, and figure builders (data in, figure out)."""
