"""A package that is available when a model is logged, but not when it is loaded."""

from sklearn.linear_model import LinearRegression


class Gone(LinearRegression):
    """A regression whose class is of this package."""
