"""The method inside a model: expert layers, routers and gates, in any encoder of a supported family."""
