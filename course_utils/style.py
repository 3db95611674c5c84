"""What the widgets of several lessons share."""

# The text colour of the book's theme, or else JupyterLab's. Without it, widgets on a page without a kernel bring dark ink
# of their own, which a dark page would swallow.
INK = "var(--pst-color-text-base,var(--jp-ui-font-color1,inherit))"
