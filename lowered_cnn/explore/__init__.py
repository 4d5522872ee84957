"""The explorer: a page on which each equation of a network happens, forwards and backwards, on an image you drew."""
