"""A package that is there when a model is logged, and not when it is loaded."""

from sklearn.linear_model import LinearRegression


class Gone(LinearRegression):
    """A regression whose class is of this package."""
