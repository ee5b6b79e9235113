"""One module for each figure, or family of figures, which draws it; it registers itself by `@figure`."""
