"""The model of a network: links, routes, and how flows share them."""
